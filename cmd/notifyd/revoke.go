package main

import (
	"time"

	"github.com/notifyd/notifyd/client"
)

type revokeCmd struct {
	serverFlags `embed:""`
	Jti         string    `help:"The token with this 'jti'." placeholder:"ID" xor:"what"`
	Sub         string    `help:"The tokens of this 'sub' that were issued before --before, and those that do not say when." placeholder:"NAME" xor:"what"`
	Before      time.Time `help:"With --sub: a time such as 2026-01-31T12:00:00Z. Default: now." placeholder:"TIME"`
	Iss         string    `help:"Only tokens with this 'iss'." placeholder:"ISS"`
}

// Help is shown by --help.
func (revokeCmd) Help() string {
	return `Revoked tokens publish nothing more, and the subscriptions and connections that rely on them end, on every node. Exit code 0: the revocation is in force on the node that was asked, and on its way to the others.

    export NOTIFYD_TOKEN=$(notifyd token --key key.jwk --sub operator --admin --ttl 5m)
    notifyd revoke --jti 5f3a
    notifyd revoke --sub ann

An issuer's clock may be ahead, so --sub without --before also reaches the tokens that are issued within the next seconds (auth.not_before_leeway of the server, 5 s, and the one that has begun). Give the subject its next token after that, or say --before.

The administrator of an issuer that has 'admin: true' in auth.issuers revokes that issuer's tokens; one with 'admin: all' everybody's.`
}

// Run asks the server.
func (c *revokeCmd) Run(p *process) error {
	switch {
	case c.Jti == "" && c.Sub == "":
		return usagef("revoke what? Give --jti or --sub")
	case c.Jti != "" && !c.Before.IsZero():
		return usagef("--before goes with --sub; a jti stands for one token, whenever it was issued")
	}
	if err := c.check(); err != nil {
		return err
	}
	return client.Revoke(p.ctx, c.URL, c.Token, client.Revocation{ID: c.Jti, Subject: c.Sub, Before: c.Before, Issuer: c.Iss})
}
