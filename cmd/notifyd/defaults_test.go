package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
)

// What serve does by default is what the packages do by default: a default of theirs is not another one here. Those that
// the packages do not have, since their zero is no bound, are here alone.
func TestDefaultsAreThoseOfThePackages(t *testing.T) {
	t.Parallel()
	c := parse(t, nil)
	o, err := c.nodeOptions()
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	var compare func(where string, packages, here reflect.Value)
	compare = func(where string, packages, here reflect.Value) {
		for i := range packages.NumField() {
			name := where + packages.Type().Field(i).Name
			switch p, h := packages.Field(i), here.Field(i); {
			case p.Kind() == reflect.Struct:
				compare(name+".", p, h)
			case p.IsZero() || p.Kind() == reflect.Func:
			case !reflect.DeepEqual(p.Interface(), h.Interface()):
				t.Errorf("%s: serve has %v, the package %v", name, h, p)
			default:
				compared++
			}
		}
	}
	compare("server.Options.", reflect.ValueOf(server.Options{}.WithDefaults()), reflect.ValueOf(o.Server.WithDefaults()))
	if compared < 15 {
		t.Errorf("only %d defaults were compared", compared)
	}
	for _, d := range []struct {
		name           string
		here, packages any
	}{
		{"auth.not_before_leeway", c.Auth.NotBeforeLeeway, authz.DefaultNotBeforeLeeway},
		{"auth.cache_entries", c.Auth.CacheEntries, authz.DefaultCacheEntries},
		{"auth.token_bytes", int(c.Auth.TokenBytes), authz.DefaultMaxTokenBytes},
		{"auth.jwks_refresh", c.Auth.JWKSRefresh, authz.DefaultJWKSRefresh},
		{"auth.jwks_cooldown", c.Auth.JWKSCooldown, authz.DefaultJWKSCooldown},
		{"auth.jwks_timeout", c.Auth.JWKSTimeout, authz.DefaultJWKSTimeout},
		{"auth.jwks_max_age", c.Auth.JWKSMaxAge, authz.DefaultJWKSMaxAge},
		{"nats.prefix", c.NATS.Prefix, bus.DefaultPrefix},
		{"nats.linger", c.NATS.Linger, bus.DefaultLinger},
		{"nats.sync_interval", c.NATS.SyncInterval, defaultSyncInterval},
		{"limits.message_bytes, of NATS", int(c.Limits.MessageBytes), bus.DefaultMaxPayload},
	} {
		if d.here != d.packages {
			t.Errorf("%s: serve has %v, the package %v", d.name, d.here, d.packages)
		}
	}
}

// Commands that talk to a server look for it at one place.
func TestDefaultURL(t *testing.T) {
	t.Parallel()
	var grammar cli
	if _, err := newParser(&process{}, &settings{file: map[string]any{}}, &grammar).Parse([]string{"pub", "a", "1"}); err != nil {
		t.Fatal(err)
	}
	if grammar.Pub.URL != defaultURL {
		t.Errorf("pub has %s, doctor %s", grammar.Pub.URL, defaultURL)
	}
}

// The comments on the options of the packages name the defaults that they have.
func TestCommentsNameTheDefaults(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		file    string
		options any
		least   int
	}{
		{"../../server/server.go", server.Options{}.WithDefaults(), 6},
		{"../../server/loop/options.go", loop.Options{}.WithDefaults(), 9},
	} {
		if n := checkComments(t, x.file, x.options); n < x.least {
			t.Errorf("%s: only %d defaults were found", x.file, n)
		}
	}
}

// said finds the defaults in a comment: "Default 1,000." or "Defaults 25 s and 75 s."
var (
	said     = regexp.MustCompile(`Defaults? ((?:[\d,]+(?: (?:KiB|MiB|ms|s|h))?(?: and )?)+)`)
	quantity = regexp.MustCompile(`([\d,]+)(?: (KiB|MiB|ms|s|h)\b)?`)
)

// checkComments compares what the comments in a struct Options say with the values of its fields.
func checkComments(t *testing.T, file string, options any) (found int) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || spec.Name.Name != "Options" {
			return true
		}
		// A comment stands over the first of the fields that it is about.
		for i, fields := 0, spec.Type.(*ast.StructType).Fields.List; i < len(fields); i++ {
			comment := strings.Join(strings.Fields(fields[i].Doc.Text()), " ")
			m := said.FindStringSubmatch(comment)
			if m == nil {
				continue
			}
			var names []*ast.Ident
			for j := i; j < len(fields) && (j == i || fields[j].Doc == nil); j++ {
				names = append(names, fields[j].Names...)
			}
			quantities := quantity.FindAllStringSubmatch(m[1], -1)
			for k, name := range names {
				found++
				got := reflect.ValueOf(options).FieldByName(name.Name).Int()
				if want := number(quantities[min(k, len(quantities)-1)]); got != want {
					t.Errorf("%s: %s is %d, and the comment says %s", file, name.Name, got, m[0])
				}
			}
		}
		return false
	})
	return found
}

// number is a quantity as an option holds it: times are in nanoseconds.
func number(m []string) int64 {
	n, _ := strconv.ParseInt(strings.ReplaceAll(m[1], ",", ""), 10, 64) // the pattern has digits
	switch m[2] {
	case "KiB":
		n <<= 10
	case "MiB":
		n <<= 20
	case "ms":
		n *= int64(time.Millisecond)
	case "s":
		n *= int64(time.Second)
	case "h":
		n *= int64(time.Hour)
	}
	return n
}
