//go:build linux

package abuse

// Abuse is one way to attack.
type Abuse struct {
	Name  string
	About string

	serve   []string // flags of the server
	alg     string   // of its key; "": EdDSA
	keySet  bool     // the key comes from a URL
	proxied bool     // the server is behind a proxy that speaks the PROXY protocol
	wants   []string // what the attacker must have got, or there was no attack
	run     func(*attacker) error
}

// List are all abuses.
var List = []Abuse{
	// strangers.go: without a token
	{Name: "silent-strangers", About: "connections that say nothing, and come back when they are closed", run: silentStrangers, serve: hurry, wants: []string{"cut off"}},
	{Name: "half-requests", About: "heads of handshakes, a byte at a time", run: halfRequests, serve: hurry, wants: []string{"cut off"}},
	{Name: "half-bodies", About: "requests whose body never comes", run: halfBodies, serve: hurry, wants: []string{"cut off"}},
	{Name: "unread-answers", About: "HTTP requests one after another, whose answers are not read", run: unreadAnswers, serve: hurry, wants: []string{"cut off"}},
	{Name: "large-heads", About: "heads just below and above the limit", run: largeHeads, wants: []string{"HTTP 431", "upgraded"}},
	{Name: "foreign-origins", About: "handshakes of pages that may not connect", run: foreignOrigins, serve: []string{"--origins=https://app.example.com"}, wants: []string{"HTTP 403"}},
	{Name: "garbage-tokens", About: "handshakes with what is no token", run: garbageTokens, wants: []string{"HTTP 401"}},
	{Name: "invented-tickets", About: "handshakes with tickets that nobody was given", run: inventedTickets, wants: []string{"HTTP 401"}},
	{Name: "proxy-garbage", About: "what is no PROXY header, to a listener that wants one", run: proxyGarbage, serve: []string{"--proxy-protocol"}, proxied: true, wants: []string{"HTTP 400"}},
	{Name: "close-storm", About: "connect, subscribe and leave by RST, FIN or close frame, as fast as it goes", run: closeStorm, wants: []string{"ack"}},

	// frames.go: broken or odd WebSocket
	{Name: "half-frames", About: "the first half of a large message, on many connections", run: halfFrames, serve: hurry, wants: []string{"close 1008"}},
	{Name: "slow-frames", About: "messages that come a byte at a time", run: slowFrames},
	{Name: "fragments", About: "messages in fragments of a byte or none", run: fragments, wants: []string{"close 1009"}},
	{Name: "reserved-bits", About: "compressed frames, reserved opcodes, no mask, lengths of 2⁶³", run: reservedBits, wants: []string{"close 1002"}},
	{Name: "ping-flood", About: "pings whose pongs are not read", run: pingFlood},
	{Name: "bad-utf8", About: "text that is not UTF-8", run: badUTF8, wants: []string{"close 1007"}},
	{Name: "deep-json", About: "envelopes of 60,000 nested arrays", run: deepJSON, wants: []string{"bad_envelope"}},
	{Name: "oversize", About: "messages over the limit", run: oversize, wants: []string{"close 1009"}},

	// tokens.go
	{Name: "bad-signatures", About: "publishes whose token has a wrong signature", run: badSignatures, alg: "ES256", wants: []string{"token_invalid"}},
	{Name: "bad-signatures-http", About: "the same in HTTP requests", run: badSignaturesHTTP, alg: "ES256", wants: []string{"HTTP 401"}},
	{Name: "bad-signatures-handshake", About: "the same in handshakes", run: badSignaturesHandshake, alg: "ES256", wants: []string{"HTTP 401"}},
	{Name: "new-tokens", About: "publishes that each have a new and good token, of the algorithm that costs most", run: newTokens, alg: "ES384", wants: []string{"ack"}},
	{Name: "unknown-keys", About: "tokens with invented key ids, which make the server fetch keys", run: unknownKeys, keySet: true, wants: []string{"token_invalid"}},
	{Name: "tickets", About: "one client that asks for tickets", run: ticketFlood, wants: []string{"HTTP 201", "HTTP 429"}},
	{Name: "refreshes", About: "new credentials, again and again", run: refreshes, wants: []string{"ack"}},
	{Name: "replays", About: "a token for one message, used again and again", run: replays, wants: []string{"ack", "token_replayed"}},
	{Name: "revocations", About: "50 revocations a second, with thousands of connections", run: revocations, wants: []string{"HTTP 204"}},
	{Name: "expiries", About: "thousands of subscriptions whose tokens expire at one moment", run: expiries, wants: []string{"expired"}},

	// subscribing.go
	{Name: "overlapping-patterns", About: "8 connections with 1,000 patterns each, which match the attacker's large events", run: overlappingPatterns, wants: []string{"ack", "close 4410"}},
	{Name: "overlapping-small", About: "the same with small events", run: overlappingSmall, wants: []string{"event"}},
	{Name: "overlapping-others", About: "the same, which match each event of the honest pair", run: overlappingOthers, wants: []string{"event"}},
	{Name: "topic-churn", About: "subscribe to ever new topics and leave them", run: topicChurn, wants: []string{"ack"}},
	{Name: "pattern-churn", About: "subscribe to ever new patterns and leave them", run: patternChurn, wants: []string{"ack"}},
	{Name: "mass-leave", About: "100 connections with 1,000 subscriptions each, all of which end at once", run: massLeave, wants: []string{"ack"}},
	{Name: "never-read", About: "subscribers to the honest topic and to a flood that read nothing", run: neverRead, wants: []string{"close 4410"}},
	{Name: "trickle-readers", About: "subscribers to a flood that read a little at a time", run: trickleReaders},

	// publishing.go
	{Name: "above-rate", About: "publishers far above limits.rate", run: aboveRate, serve: []string{"--limits.rate=400"}, wants: []string{"rate_limited"}},
	{Name: "large-events", About: "events of the largest size, to own subscribers that read", run: largeEvents, wants: []string{"ack", "event"}},
	{Name: "nobody-reads", About: "publishes to ever new topics that nobody reads", run: nobodyReads, wants: []string{"ack"}},
	{Name: "forbidden-topics", About: "publishes and subscribes that the token does not permit", run: forbiddenTopics, wants: []string{"forbidden", "bad_topic"}},

	// durable.go: topics that are kept
	{Name: "replay-readers", About: "20 clients that read 20 MB of history, again and again", run: replayReaders, serve: keeps, wants: []string{"event"}},
	{Name: "replay-unread", About: "500 clients that ask for 20 MB of history and do not read it", run: replayUnread, serve: keeps, wants: []string{"unread"}},
	{Name: "replay-churn", About: "subscribe to all of a history and leave before it comes", run: replayChurn, serve: keeps, wants: []string{"ack"}},
	{Name: "resume-storm", About: "900 clients that come back at once, each 100 events behind", run: resumeStorm, serve: keeps, wants: []string{"event"}},
	{Name: "stored-flood", About: "publishes to a stream, on ever new topics of it", run: storedFlood, serve: keeps, wants: []string{"ack"}},
}

// hurry has attacks that wait for a deadline of the server see it within a short run.
var hurry = []string{"--limits.handshake-timeout=1s", "--limits.message-timeout=1s"}
