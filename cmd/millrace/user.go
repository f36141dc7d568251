package main

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"
)

// newUser is about people, and devices with a password.
func newUser() *cobra.Command {
	a := &api{}
	c := &cobra.Command{
		Use:   "user",
		Short: "Make, change and remove users",
		Example: `  millrace user add ann
  millrace user passwd ann --password-file new.txt`,
	}
	a.register(c)
	c.AddCommand(userAdd(a), userList(a), userRemove(a), userPassword(a))
	return c
}

func userPath(name string) string { return "/users/" + url.PathEscape(name) }

func userAdd(a *api) *cobra.Command {
	var p passwordFlags
	var superuser bool
	c := &cobra.Command{
		Use: "add NAME", Short: "Make a user", Args: cobra.ExactArgs(1),
		Example: `  millrace user add ann
  MILLRACE_PASSWORD=... millrace user add press-7`,
		RunE: action(func(c *cobra.Command, args []string) error {
			password, err := p.read(c, args[0])
			if err != nil {
				return err
			}
			body := map[string]any{"username": args[0], "password": password, "superuser": superuser}
			data, err := a.call(c.Context(), http.MethodPost, "/users", body)
			if err != nil {
				return err
			}
			return a.show(c, data, "")
		}),
	}
	p.register(c)
	c.Flags().BoolVar(&superuser, "superuser", false, "an administrator that reaches every topic")
	return c
}

func userList(a *api) *cobra.Command {
	var limit, offset int
	c := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the users", Args: cobra.NoArgs,
		RunE: action(func(c *cobra.Command, _ []string) error {
			data, err := a.call(c.Context(), http.MethodGet, fmt.Sprintf("/users?limit=%d&offset=%d", limit, offset), nil)
			if err != nil {
				return err
			}
			return a.show(c, data, "users", "username", "superuser", "disabled", "created_at", "last_login_at")
		}),
	}
	c.Flags().IntVar(&limit, "limit", 1000, "at most so many")
	c.Flags().IntVar(&offset, "offset", 0, "leave out so many first")
	return c
}

func userRemove(a *api) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "rm NAME", Short: "Remove a user; what it is connected with ends", Args: cobra.ExactArgs(1),
		RunE: action(func(c *cobra.Command, args []string) error {
			if err := confirm(c, yes, "remove user "+args[0]); err != nil {
				return err
			}
			_, err := a.call(c.Context(), http.MethodDelete, userPath(args[0]), nil)
			return err
		}),
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func userPassword(a *api) *cobra.Command {
	var p passwordFlags
	var own bool
	var old string
	c := &cobra.Command{
		Use: "passwd NAME", Short: "Give a user another password; its logins and connections end", Args: cobra.ExactArgs(1),
		Example: `  millrace user passwd ann
  millrace user passwd ann --own`,
		RunE: action(func(c *cobra.Command, args []string) error {
			present := ""
			if own = own || old != ""; own {
				var err error
				if present, err = readOld(c, old, args[0]); err != nil {
					return err
				}
			}
			password, err := p.read(c, args[0])
			if err != nil {
				return err
			}
			if own {
				body := map[string]any{"username": args[0], "password": present, "new_password": password}
				_, err = a.call(c.Context(), http.MethodPost, "/login/password", body)
				return err
			}
			_, err = a.call(c.Context(), http.MethodPatch, userPath(args[0]), map[string]any{"password": password})
			return err
		}),
	}
	p.register(c)
	c.Flags().BoolVar(&own, "own", false, "by the present password of the user, and no API key")
	c.Flags().StringVar(&old, "old-password-file", "", "file with the present password, for --own (MILLRACE_OLD_PASSWORD)")
	return c
}
