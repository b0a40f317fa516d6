package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/node"
)

// reached is what came of trying something over the network.
type reached struct {
	key, name, what string
	err             error
}

// reach fetches the key sets, and logs in to an external NATS.
func (c *config) reach(ctx context.Context) (all []reached) {
	for key, name := range c.keySources() {
		if isURL(name) {
			what, err := c.tryKeys(ctx, name)
			all = append(all, reached{key, withoutSecrets(name), what, err})
		}
	}
	if c.NATS.URL != "" {
		what, err := c.tryNATS(ctx)
		if streams := streamErrors(err); len(streams) > 0 {
			for _, e := range streams {
				all = append(all, reached{busKey(e.Field), strconv.Quote(e.Value), "", fmt.Errorf("%w; %s", e.Err, e.RemedyWith(busKey))})
			}
			return all
		}
		all = append(all, reached{"nats.url", withoutUser(c.NATS.URL), what, err})
	}
	return all
}

// streamErrors are what is joined in err about the streams that are declared.
func streamErrors(err error) (list []*node.OptionError) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			list = append(list, streamErrors(e)...)
		}
		return list
	}
	var option *node.OptionError
	if errors.As(err, &option) && strings.HasPrefix(option.Field, "Streams[") {
		list = append(list, option)
	}
	return list
}

func (c *config) tryKeys(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Auth.JWKSTimeout)
	defer cancel()
	keys, skipped, err := authz.FetchKeys(ctx, url)
	if err != nil {
		return "", err
	}
	var names []string
	for _, key := range keys {
		names = append(names, key.String())
	}
	for _, err := range skipped {
		names = append(names, "not trusted: "+err.Error())
	}
	return strings.Join(names, ", "), nil
}

func (c *config) tryNATS(ctx context.Context) (string, error) {
	var o node.Options
	c.setBusOptions(&o)
	n, err := node.TryNATS(ctx, o)
	if err != nil {
		return "", err
	}
	if n.MaxPayload < int64(c.Limits.MessageBytes) {
		return "", fmt.Errorf("its max_payload is %d bytes; raise it, or lower limits.message_bytes (%v)", n.MaxPayload, c.Limits.MessageBytes)
	}
	what := []string{fmt.Sprintf("%s, version %s, with JetStream", n.Name, n.Version)}
	for _, change := range n.Changes {
		what = append(what, "streams: "+change+"; a node that starts with this configuration changes it, for all nodes")
	}
	return strings.Join(what, "\n"), nil
}

// withoutUser is a list of NATS URLs without what may be secret in it.
func withoutUser(urls string) string {
	var list []string
	for one := range strings.SplitSeq(urls, ",") {
		scheme, rest, ok := strings.Cut(strings.TrimSpace(one), "://")
		if !ok {
			scheme, rest = "nats", scheme
		}
		list = append(list, scheme+"://"+rest[strings.LastIndexByte(rest, '@')+1:])
	}
	return strings.Join(list, ",")
}

// tryOnline tries what the configuration names, says what came of it, and fails if something did not answer as it should.
func (c *checkCmd) tryOnline(p *process) error {
	var failed []string
	for _, r := range c.reach(p.ctx) {
		if r.err != nil {
			failed = append(failed, fmt.Sprintf("%s: %s: %v", r.key, r.name, r.err))
			continue
		}
		if _, err := fmt.Fprintf(p.stdout, "%s: %s: %s\n", r.key, r.name, r.what); err != nil {
			return err
		}
	}
	if len(failed) > 0 {
		return errors.New(strings.Join(failed, "\n"))
	}
	return nil
}
