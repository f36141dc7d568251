package main

import (
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"millrace/cmd/millrace/config"
)

// newKey is about the credentials of programs.
func newKey() *cobra.Command {
	a := &api{}
	c := &cobra.Command{
		Use:   "key",
		Short: "Make, change and revoke API keys",
		Example: `  millrace key add --role client --scope 'hall/7/#' --scope 'queue:jobs-*'
  millrace key rotate kB3xW9aQ_2fT`,
	}
	a.register(c)
	c.AddCommand(keyAdd(a), keyList(a), keyInfo(a), keyRemove(a), keyRotate(a), keyRotateSigning(a),
		keySwitch(a, "disable", "Refuse a key from now on; what it is connected with ends", true),
		keySwitch(a, "enable", "Let a disabled key in again", false))
	return c
}

func keyPath(id string) string { return "/keys/" + url.PathEscape(id) }

func keyAdd(a *api) *cobra.Command {
	var role, name, owner, description, expires, secretFile string
	var scopes []string
	c := &cobra.Command{
		Use: "add [ID]", Short: "Make an API key; its secret is shown this once", Args: cobra.MaximumNArgs(1),
		Example: `  millrace key add --name 'press in hall 7' --scope 'hall/7/#'
  millrace key add backup --role viewer --expires 90d -o json`,
		RunE: action(func(c *cobra.Command, args []string) error {
			body := map[string]any{}
			if len(args) > 0 {
				body["id"] = args[0]
			}
			for member, value := range map[string]string{"role": role, "name": name, "owner": owner, "description": description} {
				if value != "" {
					body[member] = value
				}
			}
			if len(scopes) > 0 {
				body["scopes"] = scopes
			}
			if expires != "" {
				at, err := endTime(expires, time.Now())
				if err != nil {
					return err
				}
				body["expires_at"] = at
			}
			if secretFile != "" {
				secret, err := secretFrom(c, secretFile)
				if err != nil {
					return err
				}
				body["secret"] = secret
			}
			data, err := a.call(c.Context(), http.MethodPost, "/keys", body)
			if err != nil {
				return err
			}
			return a.show(c, data, "")
		}),
	}
	f := c.Flags()
	f.StringVar(&role, "role", "", "administrator, viewer, publisher or client, which is the default")
	f.StringArrayVar(&scopes, "scope", nil, "topic filter, queue:GLOB or stream:GLOB it is narrowed to; may be repeated")
	f.StringVar(&name, "name", "", "name for people")
	f.StringVar(&owner, "owner", "", "whom it is for")
	f.StringVar(&description, "description", "", "what it is for")
	f.StringVar(&expires, "expires", "", "end, as 2030-01-31T12:00:00Z, or after a time, as 90d")
	f.StringVar(&secretFile, "secret-file", "", "file with the secret it gets, - is standard input; without it one is made")
	return c
}

// endTime reads a moment, or a time from now.
func endTime(text string, now time.Time) (string, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t.Format(time.RFC3339), nil
	}
	var d config.Duration
	if err := d.UnmarshalText([]byte(text)); err != nil || d <= 0 {
		return "", usage("--expires %q is neither a time as 2030-01-31T12:00:00Z nor a duration as 90d", text)
	}
	return now.Add(time.Duration(d)).UTC().Format(time.RFC3339), nil
}

func keyList(a *api) *cobra.Command {
	var limit, offset int
	c := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the API keys", Args: cobra.NoArgs,
		RunE: action(func(c *cobra.Command, _ []string) error {
			data, err := a.call(c.Context(), http.MethodGet, fmt.Sprintf("/keys?limit=%d&offset=%d", limit, offset), nil)
			if err != nil {
				return err
			}
			return a.show(c, data, "keys", "id", "name", "role", "scopes", "disabled", "expires_at", "last_used_at")
		}),
	}
	c.Flags().IntVar(&limit, "limit", 1000, "at most so many")
	c.Flags().IntVar(&offset, "offset", 0, "leave out so many first")
	return c
}

func keyInfo(a *api) *cobra.Command {
	return &cobra.Command{
		Use: "info ID", Short: "Show an API key, without its secret", Args: cobra.ExactArgs(1),
		RunE: action(func(c *cobra.Command, args []string) error {
			data, err := a.call(c.Context(), http.MethodGet, keyPath(args[0]), nil)
			if err != nil {
				return err
			}
			return a.show(c, data, "")
		}),
	}
}

func keyRemove(a *api) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "rm ID", Aliases: []string{"revoke"}, Short: "Revoke an API key; what it is connected with ends", Args: cobra.ExactArgs(1),
		RunE: action(func(c *cobra.Command, args []string) error {
			if err := confirm(c, yes, "revoke key "+args[0]); err != nil {
				return err
			}
			_, err := a.call(c.Context(), http.MethodDelete, keyPath(args[0]), nil)
			return err
		}),
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// keyRotate gives a key another secret in two steps, so that its programs can
// be changed over in between.
func keyRotate(a *api) *cobra.Command {
	var finish bool
	c := &cobra.Command{
		Use: "rotate ID", Short: "Give a key a second secret; with --finish end the first", Args: cobra.ExactArgs(1),
		Example: `  millrace key rotate press-7
  millrace key rotate press-7 --finish`,
		RunE: action(func(c *cobra.Command, args []string) error {
			method, path := http.MethodPost, keyPath(args[0])+"/secrets"
			if finish {
				method, path = http.MethodDelete, path+"/first"
			}
			data, err := a.call(c.Context(), method, path, nil)
			if err != nil {
				return err
			}
			return a.show(c, data, "")
		}),
	}
	c.Flags().BoolVar(&finish, "finish", false, "end the first secret, and what is connected with it")
	return c
}

// keyRotateSigning is about the key of tokens, of which the broker knows both halves.
func keyRotateSigning(a *api) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "rotate-signing", Args: cobra.NoArgs,
		Short: "Have another key sign the tokens of logins; twice ends all access tokens",
		RunE: action(func(c *cobra.Command, _ []string) error {
			if err := confirm(c, yes, "change the key that signs tokens"); err != nil {
				return err
			}
			data, err := a.call(c.Context(), http.MethodPost, "/signing-keys/rotate", nil)
			if err != nil {
				return err
			}
			return a.show(c, data, "signing_keys", "id", "made_at", "verifies_until")
		}),
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func keySwitch(a *api, verb, short string, disabled bool) *cobra.Command {
	return &cobra.Command{
		Use: verb + " ID", Short: short, Args: cobra.ExactArgs(1),
		RunE: action(func(c *cobra.Command, args []string) error {
			_, err := a.call(c.Context(), http.MethodPatch, keyPath(args[0]), map[string]any{"disabled": disabled})
			return err
		}),
	}
}
