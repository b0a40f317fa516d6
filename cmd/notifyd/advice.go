package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/notifyd/notifyd/wire"
)

// advice is the last line about a failure: what to do next. command is the subcommand; "" where its errors say that
// themselves.
func advice(command string, err error) string {
	words := strings.Fields(command) // "keys public", "pub <topic> <data>"
	if i := slices.IndexFunc(words, func(w string) bool { return strings.ContainsAny(w, "<[") }); i >= 0 {
		words = words[:i]
	}
	name := strings.Join(words, " ")
	ofConfig := name == "serve" || name == "check" // whose errors name the key, the value and the remedy
	switch {
	case ofConfig:
		return ""
	case errors.As(err, &usageError{}):
		return "Run 'notifyd " + name + " --help' to learn more."
	case name == "streams":
		return "Run it on the node's machine, or give its admin.listen with --admin: http://127.0.0.1:9090."
	case name == "inspect":
		return "Make a new token ('notifyd token'), or correct what makes it; a server with these settings refuses this one."
	case !slices.Contains([]string{"pub", "sub", "revoke"}, name):
		return ""
	}
	var refusal *wire.Error
	switch errors.As(err, &refusal); {
	case refusal == nil:
		return "Run 'notifyd doctor URL' to see where the way to the server breaks."
	case refusal.Code == wire.Forbidden && name == "revoke":
		return "Use a token of an administrator: 'notifyd token --admin' makes one."
	case refusal.Code == wire.Forbidden:
		return "Run 'notifyd inspect' to see what the token grants; 'notifyd token' makes another."
	case refusal.Code == wire.TokenExpired:
		return "Get a new token; 'notifyd token' makes one, --ttl says for how long."
	case refusal.Code.Auth():
		return "Run 'notifyd inspect --keys FILE' with the server's keys to see which check the token fails."
	case refusal.Code == wire.HistoryUnavailable:
		return "Leave --since and --last out, or name topics of one stream: 'notifyd streams' lists them."
	case refusal.Code == wire.Unavailable:
		return "Try again in some seconds; if it lasts, 'notifyd doctor URL' looks at the way, and /readyz of the node has the reason."
	case refusal.Code == wire.RateLimited:
		return "Send more slowly, or raise limits.rate of the server."
	case refusal.Code == wire.TooLarge:
		return "Send less in one message, or raise limits.message_bytes of the server."
	}
	return "Run 'notifyd " + name + " --help' to learn more."
}
