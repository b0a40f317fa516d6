package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

// judgeToken reads the token, and asks the server what it thinks of it. The server's word counts; what the token says
// explains it.
func (x *examination) judgeToken(ctx context.Context) (string, error) {
	if x.token == "" {
		return "", skip("without a token (NOTIFYD_TOKEN, --token-file): what needs one is skipped")
	}
	seen, err := authz.Inspect(x.token)
	if err != nil {
		return "", &fault{seen: err.Error(), cause: "What was given is no token.", remedy: "Give a JWT in compact form, three parts with dots between them, whole and alone."}
	}
	x.seen = seen
	code, message := x.verdict(ctx)
	if code == wire.OK {
		if code = x.ownVerdict(); code == wire.OK {
			x.accepted = x.asked
			return x.summary(), nil
		}
	}
	return "", x.refused(code, message)
}

// verdict is what the server says of the token over HTTP, in a request for a history that names no topic: that is refused
// only after the token was looked at. OK: it takes the token, or does not say.
func (x *examination) verdict(ctx context.Context) (wire.Code, string) {
	a, err := x.get(ctx, x.call("history"), x.bearer())
	if err != nil {
		return wire.OK, ""
	}
	x.asked = true
	switch code, message, ok := a.problem(); {
	case !ok:
		x.asked = false
	case code.Auth(), code == wire.Unavailable, code == wire.Forbidden && strings.Contains(a.header.Get("WWW-Authenticate"), "insufficient_scope"):
		return code, message
	}
	return wire.OK, ""
}

// ownVerdict is what can be told without the server, where that has not said anything. Forbidden: the token is good for
// one message alone.
func (x *examination) ownVerdict() wire.Code {
	switch now := x.serverNow(); {
	case x.asked:
		return wire.OK
	case !x.seen.GrantsValid, len(x.seen.TooLong) > 0:
		return wire.TokenInvalid
	case !x.seen.Expires.IsZero() && !now.Before(x.seen.Expires):
		return wire.TokenExpired
	case x.begins().After(now.Add(clockBound)):
		return wire.TokenNotYetValid
	}
	return wire.OK
}

// begins is from when on the token is valid.
func (x *examination) begins() time.Time {
	if x.seen.IssuedAt.After(x.seen.NotBefore) {
		return x.seen.IssuedAt
	}
	return x.seen.NotBefore
}

// summary is what a good token says.
func (x *examination) summary() string {
	text := "the server takes it"
	if !x.asked {
		text = "the server does not say"
	}
	if !x.seen.Expires.IsZero() {
		text += "; it expires " + relative(x.seen.Expires.Sub(x.serverNow()))
	}
	return text + "; publish " + grants(x.seen.Publish) + ", subscribe " + grants(x.seen.Subscribe)
}

// refused explains a code with which the server refuses the token, or a request under it.
func (x *examination) refused(code wire.Code, message string) *fault {
	f := &fault{seen: code.String(), cause: fmt.Sprintf("The server refuses it: %s.", code.Text()), remedy: "Section 6 of docs/protocol.md has the codes."}
	if message != "" {
		f.seen += ": " + message
		f.cause = fmt.Sprintf("The server refuses it: %s.", message)
	}
	server := x.serverNow().UTC().Truncate(time.Second)
	switch code {
	case wire.TokenExpired:
		f.ofTime = true
		f.cause = "The token has expired."
		if !x.seen.Expires.IsZero() {
			f.cause = fmt.Sprintf("The token expired at %s, and the server's clock says %s.", x.seen.Expires.UTC().Format(time.RFC3339), server.Format(time.RFC3339))
		}
		f.remedy = "Get a new token; have whoever hands them out renew them before they expire."
	case wire.TokenNotYetValid:
		f.ofTime = true
		f.cause = "The token is not valid yet: its issuer's clock is ahead of the server's."
		if begins := x.begins(); !begins.IsZero() {
			f.cause = fmt.Sprintf("The issuer's clock is ahead: the token is valid from %s on (nbf or iat), and the server's clock says %s, %v earlier.",
				begins.UTC().Format(time.RFC3339), server.Format(time.RFC3339), begins.Sub(server).Round(time.Second))
		}
		f.remedy = "Set the clock of the issuer, or of the server (NTP); auth.not_before_leeway (5 s) is what the server puts up with."
	case wire.TokenRevoked:
		f.cause = "The token was revoked, by its jti or with all of its sub."
		f.remedy = "Get a new token; after a revocation by sub it has to be issued later (iat) than that."
	case wire.TokenMissing:
		return credentialFirst()
	case wire.TokenMalformed:
		f.cause = fmt.Sprintf("The server cannot read the token, of %d bytes.", len(x.token))
		f.remedy = "Give a JWT in compact form; one that is longer than auth.token_bytes (8 KiB) is refused as well."
	case wire.TokenInvalid:
		x.explainInvalid(f)
	case wire.Forbidden:
		f.cause = "The token is good for one message alone (notify.digest or notify.once), so it opens no connection."
		f.remedy = "Take another token for connections; this one is for one publish."
	case wire.Unavailable:
		f.cause = "The node cannot look at the token now: the issuer's keys, or NATS, which brings revocations and keeps tickets, are out of reach."
		if x.accepted {
			f.cause = "The node takes the token, and cannot do it now: its NATS is out of reach, or the stream of the topic is."
		}
		f.remedy = "Ask /readyz of the node's admin listener (--admin), and try 'notifyd check --online --config FILE' on its machine."
	case wire.RateLimited:
		f.cause, f.remedy = "The server takes no more from this client for now: limits.rate, or tickets.", "Wait, or raise the limit."
	case wire.TooManySubscriptions:
		f.remedy = "Raise limits.subscriptions."
	}
	return f
}

// explainInvalid says which check the token fails, as far as that can be known here: the server does not tell.
func (x *examination) explainInvalid(f *fault) {
	f.remedy = "Sign it with a key that is in auth.keys of the server, for its auth.issuer and auth.audience."
	switch found := x.check(); {
	case !x.seen.GrantsValid:
		f.cause = "The grants in the token are malformed: " + x.seen.GrantFault + "."
		f.remedy = "Correct the claim notify, or authorization_details (docs/protocol.md, section 5)."
	case len(x.seen.TooLong) > 0:
		f.cause = fmt.Sprintf("%s in the token is longer than 1,024 bytes, so that nobody could revoke it.", strings.Join(x.seen.TooLong, " and "))
		f.remedy = "Shorten it."
	case found != nil:
		f.cause = "The token fails a check: " + strings.TrimPrefix(found.Error(), wire.TokenInvalid.String()+": ") + "."
		f.remedy = "Correct that in what makes the tokens, or in the server's auth.keys, auth.issuer or auth.audience."
	case x.verifier != nil:
		f.cause = "The keys of --keys verify the token, and the server's do not: it has other keys, another auth.issuer or auth.audience, or withdrew the key."
	default:
		f.cause = "The server does not accept the token's signature, issuer or audience; it does not say which. The token has " + x.marks() + "."
		f.remedy = "Compare that with auth.keys, auth.issuer and auth.audience of the server; --keys, --issuer and --audience do it here, and at log.level debug the node's log says it."
	}
}

// check makes the checks that the flags ask for, and says which one fails.
func (x *examination) check() error {
	if x.verifier == nil {
		return (&inspectCmd{Issuer: x.Issuer, Audience: x.Audience}).compare(x.seen)
	}
	if _, code := x.verifier.Verify([]byte(x.token)); code == wire.OK || x.refusal == nil {
		return nil
	}
	return x.refusal
}

// marks are what a token says that a server compares.
func (x *examination) marks() string {
	var header struct{ Alg, Kid string }
	_ = json.Unmarshal(x.seen.Header, &header) // what is no string is no name
	or := func(text string) string {
		if text == "" {
			return "none"
		}
		return fmt.Sprintf("%q", text)
	}
	aud := "none"
	if len(x.seen.Audience) > 0 {
		aud = fmt.Sprintf("%q", x.seen.Audience)
	}
	return fmt.Sprintf("alg %s, kid %s, iss %s and aud %s", or(header.Alg), or(header.Kid), or(x.seen.Issuer), aud)
}

// notGranted says what the token grants instead.
func (x *examination) notGranted(action, topic string) *fault {
	granted := x.seen.Subscribe
	if strings.HasPrefix(action, "publish") {
		granted = x.seen.Publish
	}
	return &fault{
		seen:   wire.Forbidden.String() + ": " + topic,
		cause:  fmt.Sprintf("The token does not permit to %s %s: it grants %s.", action, topic, grants(granted)),
		remedy: "Put a pattern that covers the topic into the token's grants (notify), or try a topic that they cover.",
	}
}

// doctorTopic is the last part of topics that doctor makes up.
const doctorTopic = "notifyd-doctor"

// chooseTopic is the topic to subscribe to: the one that was asked for, or one that the token may both publish and
// subscribe to and that nobody else uses, or else any that it may subscribe to.
func (x *examination) chooseTopic() (topic, why string) {
	if x.Topic != "" {
		return x.Topic, ""
	}
	for _, list := range [][]string{x.seen.Publish, x.seen.Subscribe} {
		for _, pattern := range list {
			if made := madeUp(pattern); wire.HasWildcard(pattern) && covered(x.seen.Publish, made) && covered(x.seen.Subscribe, made) {
				return made, ""
			}
		}
	}
	if len(x.seen.Subscribe) > 0 {
		return madeUp(x.seen.Subscribe[0]), ""
	}
	return "", "because the token permits no subscription"
}

// madeUp is a topic that a pattern covers.
func madeUp(pattern string) string {
	parts := strings.Split(pattern, ".")
	for i, part := range parts {
		if part == "*" || part == ">" {
			parts[i] = doctorTopic
		}
	}
	return strings.Join(parts, ".")
}

func covered(patterns []string, topic string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return wire.Covers(p, topic) })
}

// mayPublish says why nothing is published, or "".
func (x *examination) mayPublish() (why string) {
	switch {
	case x.Topic != "":
		return ""
	case !covered(x.seen.Publish, x.topic):
		return "because the token does not permit to publish to " + x.topic
	case !strings.Contains(x.topic, doctorTopic):
		return "because others use " + x.topic + ": --topic " + x.topic + " publishes an event to it"
	case x.durable:
		return "because a stream would keep the event: --topic " + x.topic + " publishes it all the same"
	}
	return ""
}
