package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// passwordFlags say where a password comes from.
type passwordFlags struct{ plain, file string }

func (p *passwordFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&p.file, "password-file", "", "file with the password, - is standard input (MILLRACE_PASSWORD_FILE)")
	c.Flags().StringVar(&p.plain, "password", "", "the password (better MILLRACE_PASSWORD or a file: other users of this machine can see flags)")
}

// read takes the password of a user from a flag, a file, the environment or,
// on a terminal, a person.
func (p *passwordFlags) read(c *cobra.Command, user string) (string, error) {
	if p.plain != "" {
		_, _ = fmt.Fprintln(c.ErrOrStderr(), "warning: other users of this machine can see --password; use MILLRACE_PASSWORD or --password-file") // nowhere else to tell it
		return p.plain, nil
	}
	file := p.file
	if file == "" {
		if word := os.Getenv("MILLRACE_PASSWORD"); word != "" {
			return word, nil
		}
		file = os.Getenv("MILLRACE_PASSWORD_FILE")
	}
	if file != "" {
		return secretFrom(c, file)
	}
	in, ok := c.InOrStdin().(*os.File)
	if !ok || !terminal(in) {
		return "", &failure{code: exitUsage, err: fmt.Errorf("there is no password for %s", user), hint: "give it as MILLRACE_PASSWORD or --password-file"}
	}
	return askTwice(c, in, user)
}

// readOld takes the password that a user has until now.
func readOld(c *cobra.Command, file, user string) (string, error) {
	if word := os.Getenv("MILLRACE_OLD_PASSWORD"); file == "" && word != "" {
		return word, nil
	}
	if file != "" {
		return secretFrom(c, file)
	}
	in, ok := c.InOrStdin().(*os.File)
	if !ok || !terminal(in) {
		return "", &failure{code: exitUsage, err: fmt.Errorf("there is no present password of %s", user), hint: "give it as MILLRACE_OLD_PASSWORD or --old-password-file"}
	}
	words, err := ask(c, in, "Present password of "+user+": ")
	if err != nil {
		return "", err
	}
	return words[0], nil
}

// askTwice has a person type a new password.
func askTwice(c *cobra.Command, in *os.File, user string) (string, error) {
	words, err := ask(c, in, "Password for "+user+": ", "Again: ")
	if err != nil {
		return "", err
	}
	if words[0] != words[1] {
		return "", &failure{code: exitFailed, err: fmt.Errorf("the two passwords differ")}
	}
	return words[0], nil
}

// ask has a person type a line for each prompt, unseen where the terminal can.
func ask(c *cobra.Command, in *os.File, prompts ...string) ([]string, error) {
	show := hideTyping(in)
	defer show()
	r := bufio.NewReader(in)
	words := make([]string, len(prompts))
	for i, prompt := range prompts {
		_, _ = fmt.Fprint(c.ErrOrStderr(), prompt) // a prompt nobody sees is not answered
		line, err := r.ReadString('\n')
		_, _ = fmt.Fprintln(c.ErrOrStderr())
		if err != nil {
			return nil, &failure{code: exitFailed, err: fmt.Errorf("read the password: %w", err)}
		}
		words[i] = strings.TrimRight(line, "\r\n")
	}
	return words, nil
}

// secretFrom reads the first line of a file, - is standard input.
func secretFrom(c *cobra.Command, path string) (string, error) {
	const maxSecretFile = 4 << 10
	in := c.InOrStdin()
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", usage("cannot read the secret: %w", err)
		}
		defer func() { _ = f.Close() }() // it was only read
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxSecretFile))
	if err != nil {
		return "", usage("cannot read the secret: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimRight(line, "\r"); line == "" {
		return "", usage("%s holds no secret in its first line", path)
	}
	return line, nil
}
