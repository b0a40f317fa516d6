package wire_test

import (
	"errors"
	"fmt"

	"github.com/notifyd/notifyd/wire"
)

// A client writes requests and reads messages.
func Example_client() {
	fmt.Printf("%s\n", wire.AppendSubscribe(nil, "1", "rooms.*", "eyJ…"))
	fmt.Printf("%s\n", wire.AppendPublish(nil, "2", "rooms.42", "eyJ…", []byte(`{"text":"hello"}`), ""))

	var m wire.Message
	if err := wire.ParseMessage([]byte(`{"type":"event","topic":"rooms.42","pattern":"rooms.*","data":{"text":"hello"}}`), &m); err != nil {
		fmt.Println(err)
	}
	fmt.Printf("%s %s %s\n", m.Topic, m.Pattern, m.Data)
	// Output:
	// {"type":"subscribe","id":"1","topic":"rooms.*","token":"eyJ…"}
	// {"type":"publish","id":"2","topic":"rooms.42","token":"eyJ…","data":{"text":"hello"}}
	// rooms.42 rooms.* {"text":"hello"}
}

// Parse says what is wrong with an envelope. The id can be echoed all the same.
func ExampleParse() {
	var e wire.Envelope
	err := wire.Parse([]byte(`{"type":"publish","id":"7","topic":"rooms.42","token":"eyJ…"}`), &e)
	fmt.Println(err)
	fmt.Printf("%s\n", wire.AppendError(nil, e.ID, e.Topic, err.Code, err.Detail))
	// Output:
	// bad_envelope: data is missing
	// {"type":"error","id":"7","topic":"rooms.42","code":"bad_envelope","message":"data is missing"}
}

// An error of the server has a code that says whether another attempt may help.
func ExampleCode() {
	err := error(&wire.Error{Code: wire.Unavailable})
	fmt.Println(errors.Is(err, wire.Unavailable), wire.Unavailable.Retry(), wire.Forbidden.Retry())
	fmt.Println(err)
	// Output:
	// true true false
	// unavailable: the server cannot do this now: try again
}

func ExampleValidPattern() {
	fmt.Println(wire.ValidTopic("rooms.42"), wire.ValidTopic("rooms.*"), wire.ValidPattern("rooms.*"), wire.ValidPattern("rooms.x*"))
	// Output: true false true false
}
