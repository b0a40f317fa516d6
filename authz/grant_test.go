package authz

import (
	"strings"
	"testing"

	"github.com/notifyd/notifyd/wire"
)

func TestGrants(t *testing.T) {
	const none = ""
	for _, row := range []struct {
		name, claims       string // claims besides exp
		publish, subscribe string // one permitted, or none
		want               wire.Code
	}{
		{"no grant", `"sub":"a"`, none, none, wire.OK},
		{"empty notify", `"notify":{}`, none, none, wire.OK},
		{"empty lists", `"notify":{"publish":[],"subscribe":[]}`, none, none, wire.OK},
		{"publish", `"notify":{"publish":["c.d","rooms.42"]}`, "rooms.42", none, wire.OK},
		{"subscribe", `"notify":{"subscribe":["rooms.*"]}`, none, "rooms.*", wire.OK},
		{"escaped names and values", `"\u006eotify":{"\u0070ublish":["r\u006foms.42"]}`, "rooms.42", none, wire.OK},
		{"admin adds no topic", `"notify":{"admin":true}`, none, none, wire.OK},
		{"history adds no topic", `"notify":{"history":"1h30m"}`, none, none, wire.OK},
		{"no history", `"notify":{"history":"none"}`, none, none, wire.OK},
		{"history that is a number", `"notify":{"history":3600}`, none, none, wire.TokenInvalid},
		{"history without a unit", `"notify":{"history":"3600"}`, none, none, wire.TokenInvalid},
		{"history of nothing", `"notify":{"history":"0s"}`, none, none, wire.TokenInvalid},
		{"negative history", `"notify":{"history":"-1h"}`, none, none, wire.TokenInvalid},
		{"empty history", `"notify":{"history":""}`, none, none, wire.TokenInvalid},
		{"null history", `"notify":{"history":null}`, none, none, wire.TokenInvalid},
		{"history in details", `"authorization_details":[{"type":"notifyd","actions":[],"topics":[],"history":"1h"}]`, none, none, wire.TokenInvalid},
		{"details publish", `"authorization_details":[{"type":"notifyd","actions":["publish"],"topics":["rooms.42"]}]`, "rooms.42", none, wire.OK},
		{"details both", `"authorization_details":[{"type":"notifyd","actions":["publish","subscribe"],"topics":["rooms.42"]}]`, "rooms.42", "rooms.42", wire.OK},
		{"details empty", `"authorization_details":[]`, none, none, wire.OK},
		{"details no action", `"authorization_details":[{"type":"notifyd","actions":[],"topics":["rooms.42"]}]`, none, none, wire.OK},
		{"details of other types", `"authorization_details":[{"type":"payment","actions":"pay","amount":1},{"type":"notifyd","actions":["subscribe"],"topics":["a.>"]}]`, none, "a.>", wire.OK},
		{"union", `"notify":{"publish":["a"]},"authorization_details":[{"type":"notifyd","actions":["subscribe"],"topics":["b"]}]`, "a", "b", wire.OK},

		{"notify null", `"notify":null`, none, none, wire.TokenInvalid},
		{"notify string", `"notify":"publish"`, none, none, wire.TokenInvalid},
		{"notify array", `"notify":[]`, none, none, wire.TokenInvalid},
		{"publish string", `"notify":{"publish":"a"}`, none, none, wire.TokenInvalid},
		{"publish null", `"notify":{"publish":null}`, none, none, wire.TokenInvalid},
		{"publish of numbers", `"notify":{"publish":["a",1]}`, none, none, wire.TokenInvalid},
		{"publish of null", `"notify":{"publish":[null]}`, none, none, wire.TokenInvalid},
		{"one bad pattern", `"notify":{"publish":["a","a..b"]}`, none, none, wire.TokenInvalid},
		{"pattern empty", `"notify":{"subscribe":[""]}`, none, none, wire.TokenInvalid},
		{"pattern $SYS", `"notify":{"subscribe":["$SYS.>"]}`, none, none, wire.TokenInvalid},
		{"pattern _INBOX", `"notify":{"subscribe":["_INBOX.>"]}`, none, none, wire.TokenInvalid},
		{"pattern with > inside", `"notify":{"subscribe":["a.>.b"]}`, none, none, wire.TokenInvalid},
		{"pattern with a half wildcard", `"notify":{"subscribe":["a.b*"]}`, none, none, wire.TokenInvalid},
		{"pattern with a line feed", `"notify":{"publish":["a\nb"]}`, none, none, wire.TokenInvalid},
		{"bad list beside a good one", `"notify":{"publish":["a"],"subscribe":[7]}`, none, none, wire.TokenInvalid},
		{"publish twice", `"notify":{"publish":["a"],"publish":["b"]}`, none, none, wire.TokenMalformed},
		{"publish twice, once escaped", `"notify":{"publish":["a"],"\u0070ublish":["b"]}`, none, none, wire.TokenMalformed},
		{"notify twice", `"notify":{"publish":["a"]},"notify":{}`, none, none, wire.TokenMalformed},
		{"Notify", `"Notify":{"publish":["a"]}`, none, none, wire.TokenInvalid},
		{"Publish", `"notify":{"Publish":["a"]}`, none, none, wire.TokenInvalid},
		{"unknown member", `"notify":{"publish":["a"],"only_on":"monday"}`, none, none, wire.TokenInvalid},
		{"unknown member before publish", `"notify":{"only_on":"monday","publish":["a"]}`, none, none, wire.TokenInvalid},
		{"unknown member alone", `"notify":{"only_on":"monday"}`, none, none, wire.TokenInvalid},
		{"details with a restriction before topics", `"authorization_details":[{"locations":["https://x.example"],"type":"notifyd","actions":["publish"],"topics":["a"]}]`, none, none, wire.TokenInvalid},
		{"digest", `"notify":{"publish":["a"],"digest":"sha-256=abc"}`, none, none, wire.TokenInvalid},
		{"once without jti", `"notify":{"publish":["a"],"once":true}`, none, none, wire.TokenInvalid},
		{"once false", `"notify":{"publish":["a"],"once":false}`, "a", none, wire.OK},
		{"admin string", `"notify":{"admin":"true"}`, none, none, wire.TokenInvalid},

		{"details object", `"authorization_details":{"type":"notifyd"}`, none, none, wire.TokenInvalid},
		{"details null", `"authorization_details":null`, none, none, wire.TokenInvalid},
		{"details of strings", `"authorization_details":["notifyd"]`, none, none, wire.TokenInvalid},
		{"details without type", `"authorization_details":[{"actions":["publish"],"topics":["a"]}]`, none, none, wire.TokenInvalid},
		{"details type a number", `"authorization_details":[{"type":1}]`, none, none, wire.TokenInvalid},
		{"details without actions", `"authorization_details":[{"type":"notifyd","topics":["a"]}]`, none, none, wire.TokenInvalid},
		{"details without topics", `"authorization_details":[{"type":"notifyd","actions":["publish"]}]`, none, none, wire.TokenInvalid},
		{"details unknown action", `"authorization_details":[{"type":"notifyd","actions":["publish","delete"],"topics":["a"]}]`, none, none, wire.TokenInvalid},
		{"details action in capitals", `"authorization_details":[{"type":"notifyd","actions":["Publish"],"topics":["a"]}]`, none, none, wire.TokenInvalid},
		{"details action a string", `"authorization_details":[{"type":"notifyd","actions":"publish","topics":["a"]}]`, none, none, wire.TokenInvalid},
		{"details bad pattern", `"authorization_details":[{"type":"notifyd","actions":["publish"],"topics":["a."]}]`, none, none, wire.TokenInvalid},
		{"details with a restriction", `"authorization_details":[{"type":"notifyd","actions":["publish"],"topics":["a"],"locations":["https://x.example"]}]`, none, none, wire.TokenInvalid},
		{"details one of two malformed", `"authorization_details":[{"type":"notifyd","actions":["publish"],"topics":["a"]},7]`, none, none, wire.TokenInvalid},
	} {
		t.Run(row.name, func(t *testing.T) {
			v := newTestVerifier(t, newClock(), Options{})
			token, code := v.Verify([]byte(signed(t, "HS256", `{"exp":1800000060,`+row.claims+`}`)))
			if code != row.want {
				t.Fatalf("%v, want %v", code, row.want)
			}
			if code != wire.OK {
				return
			}
			for _, topic := range []string{"a", "b", "rooms.42", "rooms.*", "a.>", "x"} {
				if got := token.MayPublish([]byte(topic)); got != (topic == row.publish) {
					t.Errorf("MayPublish(%s) = %v", topic, got)
				}
				want := topic == row.subscribe || topic == "rooms.42" && row.subscribe == "rooms.*"
				if got := token.MaySubscribe([]byte(topic)); got != want {
					t.Errorf("MaySubscribe(%s) = %v", topic, got)
				}
			}
		})
	}
}

// A grant reaches what its pattern covers, and nothing that looks like it.
func TestGrantReach(t *testing.T) {
	v := newTestVerifier(t, newClock(), Options{})
	token, code := v.Verify([]byte(signed(t, "HS256", `{"exp":1800000060,"notify":{"publish":["room.1","in.*","all.>"],"subscribe":["room.1","in.*","all.>"]}}`)))
	if code != wire.OK {
		t.Fatal(code)
	}
	for topic, want := range map[string]bool{
		"room.1": true, "room.10": false, "Room.1": false, "room": false, "room.1.x": false, "room/1": false,
		"in.a": true, "in": false, "in.a.b": false,
		"all.a": true, "all.a.b": true, "all": false,
	} {
		if token.MayPublish([]byte(topic)) != want || token.MaySubscribe([]byte(topic)) != want {
			t.Errorf("%s: publish %v, subscribe %v", topic, token.MayPublish([]byte(topic)), token.MaySubscribe([]byte(topic)))
		}
	}
	for pattern, want := range map[string]bool{
		"in.*": true, "in.>": false, "*.a": false, ">": false, "room.*": false, "all.*": true, "all.>": true, "all.*.b": true, "*.>": false,
	} {
		if token.MaySubscribe([]byte(pattern)) != want {
			t.Errorf("subscribe %s: %v", pattern, !want)
		}
	}
}

// A token cannot make its grants larger than itself.
func TestGrantsDoNotMultiply(t *testing.T) {
	v := newTestVerifier(t, newClock(), Options{})
	actions := strings.Repeat(`"publish",`, 200) + `"publish"`
	topics := strings.Repeat(`"a",`, 200) + `"a"`
	token, code := v.Verify([]byte(signed(t, "HS256", `{"exp":1800000060,"authorization_details":[{"type":"notifyd","actions":[`+actions+`],"topics":[`+topics+`]}]}`)))
	if code != wire.OK {
		t.Fatal(code)
	}
	if n := len(token.publish); n != 201 {
		t.Error(n, "patterns")
	}
}
