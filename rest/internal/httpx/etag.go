package httpx

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// ETag tags one state of settings: equal ones have the same tag, on any node
// and after any restart.
func ETag(settings any) string {
	text, err := json.Marshal(settings)
	if err != nil { // a mistake in a type of ours
		panic(fmt.Sprintf("etag of %T: %v", settings, err))
	}
	sum := sha256.Sum256(text)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
}

// SetETag tells the tag of the settings in an answer.
func SetETag(w http.ResponseWriter, settings any) { w.Header()["Etag"] = []string{ETag(settings)} }

// Precondition refuses with 412 a change of settings that are not those which
// the client has seen, where it says so by If-Match.
func (r *Request) Precondition(settings any) error {
	given := r.Header["If-Match"]
	if len(given) == 0 {
		return nil
	}
	tag := ETag(settings)
	for part := range strings.SplitSeq(strings.Join(given, ","), ",") {
		if part = strings.TrimSpace(part); part == "*" || part == tag {
			return nil
		}
	}
	return &StatusError{Status: http.StatusPreconditionFailed, Message: "it was changed meanwhile: it is tagged " + tag + " now; read it again and decide anew"}
}
