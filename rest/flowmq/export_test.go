package flowmq

// Classify is for tests of the error table.
func Classify(err error) (status int, code, message string) {
	s, p := classify(err)
	return s, p.Code, p.Message
}

// HasRow reports whether the table knows the kind.
var ByKind = byKind
