// Shows the document that the page names. Nothing is asked of another host:
// there is no validator, and where the API is not served, no call is tried.
const at = document.getElementById("swagger-ui");
SwaggerUIBundle({
  domNode: at,
  url: at.dataset.document,
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: -1,
  validatorUrl: null,
  supportedSubmitMethods: at.dataset.elsewhere ? [] : ["get", "put", "post", "delete", "options", "head", "patch", "trace"],
});
