package auth

import (
	_ "embed"
	"strings"
	"unicode/utf8"
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

// validPassword refuses what is guessed first and asks for nothing else.
func validPassword(username, password string) error {
	refuse := func(reason string) error { return &InvalidError{Field: "password", Reason: reason} }
	n := utf8.RuneCountInString(password)
	lower := strings.ToLower(password)
	switch {
	case !utf8.ValidString(password):
		return refuse("must be UTF-8")
	case n < minPassword || n > maxPassword:
		return refuse("must have 8 to 256 characters")
	case strings.EqualFold(password, username):
		return refuse("must not be the user name")
	case !strings.Contains(lower, "\n") && strings.Contains(commonPasswords, "\n"+lower+"\n"):
		return refuse("is one of the commonest passwords")
	}
	return nil
}
