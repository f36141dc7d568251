// Package auth knows who is asking, and decides what they may do.
package auth

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"
)

type Kind uint8

const (
	User Kind = iota + 1
	Key
	Anonymous
	System
)

type Role uint8

const (
	Client Role = iota + 1
	Publisher
	Viewer
	Administrator
)

type Principal struct {
	Kind      Kind
	Name      string
	ClientID  string
	Role      Role
	Superuser bool
	Scopes    []string
}

func (p *Principal) String() string                                           { panic("stub") }
func WithPrincipal(ctx context.Context, p *Principal) context.Context          { panic("stub") }
func From(ctx context.Context) *Principal                                     { panic("stub") }

type Action uint8

const (
	Publish Action = iota + 1
	Subscribe
	Consume
	View
	Manage
)

type ResourceKind uint8
type Resource struct {
	Kind ResourceKind
	Name string
}

var Server = Resource{}

func TopicResource(name string) Resource  { panic("stub") }
func QueueResource(name string) Resource  { panic("stub") }
func StreamResource(name string) Resource { panic("stub") }

type Decision struct {
	Allowed bool
	Rule    string
	Overlap bool
}
type Auth struct{}

func (a *Auth) Decide(p *Principal, act Action, r Resource) Decision { panic("stub") }
func (a *Auth) Allow(p *Principal, act Action, r Resource) bool      { panic("stub") }
func (a *Auth) Generation() uint64                                   { panic("stub") }

type Keys interface {
	List(ctx context.Context, prefix string) (map[string][]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
}
type Options struct {
	Store          Keys
	AllowAnonymous bool
	Log            zerolog.Logger
	Now            func() time.Time
}

func Open(ctx context.Context, o Options) (*Auth, error) { panic("stub") }
func (a *Auth) Login(ctx context.Context, user, password, clientID, remoteAddr string, anonymous bool) (*Principal, error) {
	panic("stub")
}
func (a *Auth) Key(ctx context.Context, id, secret string) (*Principal, error)  { panic("stub") }
func (a *Auth) Bearer(ctx context.Context, token string) (*Principal, error)    { panic("stub") }

type UserSpec struct {
	Username, Password string
	Superuser          bool
}
type KeySpec struct {
	ID, Secret, Name string
	Role             string
	Scopes           []string
	Expires          time.Time
}

func (a *Auth) AddUser(ctx context.Context, s UserSpec) error                         { panic("stub") }
func (a *Auth) AddKey(ctx context.Context, s KeySpec) (id, secret string, err error) { panic("stub") }
func (a *Auth) HasAdministrator() bool                                              { panic("stub") }

type Rule struct {
	Effect, Who string
	Do          []string
	Filter      string
}

func (a *Auth) SetRules(ctx context.Context, rules []Rule) error { panic("stub") }

var (
	ErrUnauthenticated = errors.New("unknown or wrong credentials")
	ErrExists          = errors.New("exists")
	ErrNotFound        = errors.New("not found")
	ErrBusy            = errors.New("busy")
)

type InvalidError struct{ Field, Reason string }

func (e *InvalidError) Error() string { return e.Field + " " + e.Reason }

type DelayedError struct{ Retry time.Duration }

func (e *DelayedError) Error() string { return "too many attempts" }
