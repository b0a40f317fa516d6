package wire

// CloseCode is the status code of a WebSocket close frame (RFC 6455 §7.4).
type CloseCode uint16

// The close codes that a server of this protocol sends. 4000 and up are ours
// (RFC 6455 §7.4.2); their last two digits follow HTTP where HTTP has a word for
// the same thing.
const (
	CloseNormal          CloseCode = 1000
	CloseGoingAway       CloseCode = 1001
	CloseProtocol        CloseCode = 1002
	CloseBadUTF8         CloseCode = 1007
	ClosePolicy          CloseCode = 1008
	CloseTooBig          CloseCode = 1009
	CloseRestart         CloseCode = 1012
	CloseTryLater        CloseCode = 1013
	CloseBadEnvelopes    CloseCode = 4400
	CloseUnauthenticated CloseCode = 4401
	CloseForbidden       CloseCode = 4403
	CloseAuthTimeout     CloseCode = 4408
	CloseSlowConsumer    CloseCode = 4410
	CloseRate            CloseCode = 4429
)

type closeInfo struct {
	code      CloseCode
	text      string
	reconnect bool
}

// closeCodes is the one table of close codes; docs/protocol.md is tested against
// it. A text fits the 123 bytes that a close frame leaves for it (RFC 6455 §5.5).
var closeCodes = [...]closeInfo{
	{CloseNormal, "closed", false},
	{CloseGoingAway, "going away", true},
	{CloseProtocol, "protocol error", false},
	{CloseBadUTF8, "text that is not UTF-8", false},
	{ClosePolicy, "refused by policy", false},
	{CloseTooBig, "message too big", false},
	{CloseRestart, "the server restarts", true},
	{CloseTryLater, "try again later", true},
	{CloseBadEnvelopes, "too many bad envelopes in a row", false},
	{CloseUnauthenticated, "not authenticated", true},
	{CloseForbidden, "forbidden", false},
	{CloseAuthTimeout, "no auth envelope in time", true},
	{CloseSlowConsumer, "slow consumer", true},
	{CloseRate, "over the rate limit", true},
}

// Text is a short reason, fit for a close frame; "" for a code that is not in
// the table.
func (c CloseCode) Text() string {
	for i := range closeCodes {
		if closeCodes[i].code == c {
			return closeCodes[i].text
		}
	}
	return ""
}

// Reconnect reports whether a client should connect again by itself, with
// back-off. Of codes that are not in the table, those below 4000 (a connection
// that was lost, 1006, or that a proxy ended, 1011) say yes, and the others,
// which some other application defined, no.
func (c CloseCode) Reconnect() bool {
	for i := range closeCodes {
		if closeCodes[i].code == c {
			return closeCodes[i].reconnect
		}
	}
	return c < 4000
}
