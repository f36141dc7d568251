package flowmq

import (
	"bufio"
	"net/http"

	"millrace/rest/internal/httpx"
)

// backupPart is what is written to the client at once. It is more than
// httpx.WritePart, so that a client that keeps reading may take its time.
const backupPart = 4 * httpx.WritePart

// backup answers with an archive of everything that is stored. An answer that
// breaks off has no manifest at its end, and is not taken for a backup.
func (a *api) backup(w http.ResponseWriter, r *httpx.Request) error {
	b := bufio.NewWriterSize(archiveWriter{w}, backupPart)
	if err := a.broker.Backup(r.Context(), b); err != nil {
		return err
	}
	return b.Flush()
}

// archiveWriter says what comes with the first of it: an error before that is
// answered as one.
type archiveWriter struct{ http.ResponseWriter }

func (w archiveWriter) Write(p []byte) (int, error) {
	h := w.Header()
	h.Set("Content-Type", "application/x-tar")
	h.Set("Content-Disposition", `attachment; filename="millrace-backup.tar"`)
	return w.ResponseWriter.Write(p)
}
