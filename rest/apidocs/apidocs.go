// Package apidocs is the one door to the documents of the APIs: an index at "/",
// /llms.txt for programs that read prose, the OpenAPI documents, and Swagger UI
// at /api-docs/. Each listener has a door of its own, with the documents of what
// it serves. Documents ask for no credentials; the calls that they describe do.
package apidocs

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	texttemplate "text/template"

	"millrace/rest/internal/httpx"
)

// Paths of the door. Below Folder are the OpenAPI documents, each under its own
// name, and the page that shows them.
const (
	IndexPath = "/"
	LLMsPath  = "/llms.txt"
	Folder    = "/api-docs"
	PagePath  = Folder + "/index.html"
)

// Document is the OpenAPI document of one API.
type Document struct {
	Name  string // in the addresses of the page, as flowmq
	Title string // for people
	About string // a sentence
	Base  string // what the paths of its calls begin with
	Path  string // of the document, below Folder
	// Text is the document as YAML; nil where its own API answers Path.
	Text []byte
	// Elsewhere is where the API is served when it is not at this listener: the
	// page then shows its calls, and tries none. "" = here.
	Elsewhere string
}

// policy is for the pages: scripts, styles and requests of this host, and no
// other. Swagger UI has small pictures in its style sheet, as data.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

//go:embed index.html page.html llms.txt start.js page.css
var files embed.FS

var (
	pages = template.Must(template.ParseFS(files, "index.html", "page.html"))
	texts = texttemplate.Must(texttemplate.ParseFS(files, "llms.txt"))
)

type door struct {
	documents   []Document
	index, llms []byte
}

// New returns the door of a listener that shows these documents.
// renderError writes its errors.
func New(s *httpx.Shared, documents []Document, renderError func(http.ResponseWriter, *httpx.Request, error)) http.Handler {
	d := &door{documents: documents, index: fill(pages.Lookup("index.html").Execute, documents), llms: fill(texts.Execute, documents)}
	routes := []httpx.Route{
		{Method: http.MethodGet, Path: IndexPath, Handler: d.showIndex},
		{Method: http.MethodGet, Path: LLMsPath, Handler: d.showText},
		{Method: http.MethodGet, Path: Folder, Handler: toPage},
		{Method: http.MethodGet, Path: Folder + "/", Handler: toPage},
		{Method: http.MethodGet, Path: PagePath, Handler: d.showPage},
		{Method: http.MethodGet, Path: Folder + "/start.js", Handler: file("start.js", "text/javascript; charset=utf-8")},
		{Method: http.MethodGet, Path: Folder + "/page.css", Handler: file("page.css", "text/css; charset=utf-8")},
	}
	routes = append(routes, swaggerRoutes()...)
	for _, doc := range documents {
		if doc.Text != nil {
			routes = append(routes, httpx.Route{Method: http.MethodGet, Path: doc.Path, Handler: text("application/yaml", doc.Text)})
		}
	}
	return httpx.NewMux(s, httpx.Dialect{Name: "documents", Routes: routes, RenderError: renderError})
}

// fill fills a template, which is part of the program.
func fill(execute func(io.Writer, any) error, data any) []byte {
	var b bytes.Buffer
	if err := execute(&b, data); err != nil {
		panic(fmt.Sprintf("the template of a page: %v", err))
	}
	return b.Bytes()
}

func text(contentType string, body []byte) httpx.Handler {
	return func(w http.ResponseWriter, r *httpx.Request) error { return httpx.WriteText(w, r, contentType, body) }
}

func file(name, contentType string) httpx.Handler {
	body, err := files.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded
	}
	return text(contentType, body)
}

// toPage leads from the folder to its page.
func toPage(w http.ResponseWriter, r *httpx.Request) error {
	http.Redirect(w, r.Request, PagePath, http.StatusPermanentRedirect)
	return nil
}

// showIndex is for people; whoever does not ask for HTML gets the text.
func (d *door) showIndex(w http.ResponseWriter, r *httpx.Request) error {
	w.Header().Set("Vary", "Accept")
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		return d.showText(w, r)
	}
	return writePage(w, r, d.index)
}

func (d *door) showText(w http.ResponseWriter, r *httpx.Request) error {
	return httpx.WriteText(w, r, "text/plain; charset=utf-8", d.llms)
}

// showPage is Swagger UI over the document that ?doc= names, or over the first.
func (d *door) showPage(w http.ResponseWriter, r *httpx.Request) error {
	name, err := r.Query("doc")
	if err != nil {
		return err
	}
	at := slices.IndexFunc(d.documents, func(doc Document) bool { return name == "" || doc.Name == name })
	if at < 0 {
		return &httpx.StatusError{Status: http.StatusNotFound, Message: "there is no document " + httpx.Clip(name) + " here"}
	}
	shown := struct {
		Document
		All     []Document
		Swagger string
	}{d.documents[at], d.documents, SwaggerVersion}
	return writePage(w, r, fill(pages.Lookup("page.html").Execute, shown))
}

func writePage(w http.ResponseWriter, r *httpx.Request, page []byte) error {
	w.Header().Set("Content-Security-Policy", policy)
	w.Header().Set("Referrer-Policy", "no-referrer")
	return httpx.WriteText(w, r, "text/html; charset=utf-8", page)
}

// Has reports whether a path is one of the door.
func Has(p string) bool {
	return p == IndexPath || p == LLMsPath || p == Folder || path.Dir(p) == Folder
}
