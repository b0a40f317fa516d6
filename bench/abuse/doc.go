// Package abuse attacks a notifyd of its own in many ways, one after the other, and says what an honest pair of clients
// on the same node notices: lost events, refused requests, and how much later events come.
//
// list.go names the attacks. What they do is in strangers.go (no token is needed), frames.go (broken WebSocket), tokens.go,
// subscribing.go, publishing.go and durable.go. attacker.go is what they are made of. An attack runs in a process of its own
// (work.go), with the lowest priority: it stands for another machine and must not take the processors from the server.
// honest.go is the pair, report.go the table.
package abuse
