package auth

import (
	_ "embed"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

const (
	minPassword      = 8   // code points
	maxPassword      = 256 // code points
	maxPasswordBytes = maxPassword * utf8.UTFMax
)

// commonPasswords holds the commonest passwords that are long enough to be
// chosen here, in lower case, one a line; its head names source and licence.
//
//go:embed common.txt
var commonPasswords string

// normal makes one password of all ways to write it down in Unicode, so that
// another keyboard does not lock its owner out. What is far too long to be a
// password stays as it is.
func normal(password string) string {
	if len(password) > 4*maxPasswordBytes {
		return password
	}
	return norm.NFC.String(password)
}

// validPassword refuses what is guessed first and asks for nothing else.
func validPassword(username, password string) error {
	password = normal(password)
	refuse := func(reason string) error { return &InvalidError{Field: "password", Reason: reason} }
	n := utf8.RuneCountInString(password)
	lower := strings.ToLower(password)
	switch {
	case !utf8.ValidString(password):
		return refuse("must be UTF-8")
	case n < minPassword || n > maxPassword:
		return refuse("must have 8 to 256 characters")
	case strings.EqualFold(password, norm.NFC.String(username)):
		return refuse("must not be the user name")
	case !strings.Contains(lower, "\n") && strings.Contains(commonPasswords, "\n"+lower+"\n"):
		return refuse("is one of the commonest passwords")
	}
	return nil
}
