package main

import (
	"cmp"
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/notifyd/notifyd/authz"
)

// issuerConfig is one element of auth.issuers: who may make tokens, and what the operator lets them say.
type issuerConfig struct {
	Name        string        `yaml:"name"`         // the iss of its tokens
	Keys        []string      `yaml:"keys"`         // as auth.keys
	Audience    texts         `yaml:"audience"`     // one of these is required among aud; empty: not checked
	Publish     []string      `yaml:"publish"`      // patterns that it may grant; none: no publishing
	Subscribe   []string      `yaml:"subscribe"`    // patterns that it may grant; none: no subscribing
	Admin       adminOf       `yaml:"admin"`        // whose tokens its tokens may revoke
	MaxLifetime time.Duration `yaml:"max_lifetime"` // longest exp − iat; 0: no bound
	History     historyBound  `yaml:"history"`      // how far back its tokens read streams; 0: no bound
	Type        string        `yaml:"type"`         // required typ, such as at+jwt; empty: JWT, at+jwt or none
}

// historyBound is a time, or below 0 for "none".
type historyBound time.Duration

// UnmarshalYAML accepts none, and times above 0.
func (h *historyBound) UnmarshalYAML(node *yaml.Node) error {
	if node.Value == "none" {
		*h = -1
		return nil
	}
	d, err := time.ParseDuration(node.Value)
	if err != nil || d <= 0 {
		return fmt.Errorf(`history: %q is neither a time such as 1h nor none`, node.Value)
	}
	*h = historyBound(d)
	return nil
}

// adminOf says whose tokens an issuer's administrators may revoke: "false", "true" (its own) or "all" (everybody's).
type adminOf string

const (
	adminOfNone adminOf = ""
	adminOfOwn  adminOf = "true"
	adminOfAll  adminOf = "all"
)

// UnmarshalYAML accepts true, false and all.
func (a *adminOf) UnmarshalYAML(node *yaml.Node) error {
	var own bool
	switch {
	case node.Kind == yaml.ScalarNode && node.Value == string(adminOfAll):
		*a = adminOfAll
	case node.Decode(&own) != nil:
		return fmt.Errorf("%q is none of true (it revokes its own tokens), all (everybody's) and false", node.Value)
	case own:
		*a = adminOfOwn
	default:
		*a = adminOfNone
	}
	return nil
}

// issuerList is written as YAML, of which JSON is a part: in the file as it stands, elsewhere as text.
type issuerList []issuerConfig

// UnmarshalText says all that is wrong with a list.
func (l *issuerList) UnmarshalText(text []byte) (err error) {
	*l, err = decodeList[issuerConfig](text)
	return err
}

// check says what is wrong with the issuers, as authz would at start, but all of it and without asking the network. flat
// is the name of the issuer that auth.keys and auth.issuer describe, if they do.
func (l issuerList) check(f *findings, flat *string) {
	if len(l) == 0 {
		return
	}
	seen := map[string]bool{}
	if flat != nil {
		if seen[*flat] = true; *flat == "" {
			f.add("auth.issuer", `""`, "beside auth.issuers, auth.keys needs a name: set it to the 'iss' of the tokens that they sign, or move them into auth.issuers")
		}
	}
	thrownAway, err := authz.GenerateKey("EdDSA")
	if err != nil {
		f.add("auth.issuers", "", err.Error())
		return
	}
	for i, is := range l {
		key := fmt.Sprintf("auth.issuers[%d]", i)
		switch {
		case is.Name == "":
			f.add(key+".name", `""`, "is missing; write the 'iss' of its tokens")
		case seen[is.Name]:
			f.add(key+".name", is.Name, "is listed twice; put all of its keys into one entry")
		}
		seen[is.Name] = true
		if len(is.Keys) == 0 {
			f.add(key+".keys", "empty", "none of its tokens could be verified; name a file or the URL of a JWK Set")
		}
		f.keys(key+".keys", is.Keys)
		for _, part := range is.parts() {
			part.Trusted = []authz.Key{thrownAway}
			if _, err := authz.New(authz.Options{Issuers: []authz.Issuer{part}, CacheEntries: 1}); err != nil {
				f.add(key, is.Name, err.Error())
			}
		}
	}
}

// parts are policies with one rule of the issuer's each: authz has the rules for them, and tells of the first mistake alone.
func (i issuerConfig) parts() (list []authz.Issuer) {
	name := cmp.Or(i.Name, "unnamed")
	all := i.policy()
	for _, pattern := range all.Publish {
		list = append(list, authz.Issuer{Name: name, Publish: []string{pattern}})
	}
	for _, pattern := range all.Subscribe {
		list = append(list, authz.Issuer{Name: name, Subscribe: []string{pattern}})
	}
	return append(list,
		authz.Issuer{Name: name, Audience: all.Audience},
		authz.Issuer{Name: name, MaxLifetime: all.MaxLifetime},
		authz.Issuer{Name: name, Type: all.Type},
	)
}

func (i issuerConfig) policy() authz.Issuer {
	return authz.Issuer{
		Name: i.Name, Keys: i.Keys, Audience: audienceList(i.Audience), Publish: i.Publish, Subscribe: i.Subscribe,
		Admin: i.Admin != adminOfNone, AdminOfAll: i.Admin == adminOfAll, MaxLifetime: i.MaxLifetime, History: time.Duration(i.History), Type: i.Type,
	}
}
