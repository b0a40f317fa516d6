package server_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/notifyd/notifyd/wire"
)

const openAPIFile = "openapi.json"

// described is the OpenAPI document, and what compiles its schemas.
type described struct {
	text     []byte
	document any
	schemas  *jsonschema.Compiler
}

var openAPI = sync.OnceValue(func() described {
	text, err := os.ReadFile(openAPIFile)
	if err != nil {
		panic(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		panic(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(openAPIFile, document); err != nil {
		panic(err)
	}
	return described{text, document, c}
})

// at follows a path of names through the document, and references on the way. pointer is where it ends.
func (d described) at(names ...string) (value any, pointer string) {
	value = d.document
	for _, name := range names {
		object, _ := value.(map[string]any)
		value = object[name]
		pointer += "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
		if object, ok := value.(map[string]any); ok {
			if ref, ok := object["$ref"].(string); ok {
				return d.at(append(strings.Split(strings.TrimPrefix(ref, "#/"), "/"), names[slices.Index(names, name)+1:]...)...)
			}
		}
	}
	return value, pointer
}

// check compares an answer to a call with what the document says of it. Handshakes are not in it.
func (d described) check(t testing.TB, head string, r reply) {
	t.Helper()
	method, rest, _ := strings.Cut(head, " ")
	target, _, _ := strings.Cut(rest, " ")
	target, _, _ = strings.Cut(target, "?")
	call := []string{"paths", target, strings.ToLower(method)}
	if x, _ := d.at(call...); x == nil {
		return
	}
	status := strconv.Itoa(r.status)
	answer, _ := d.at(append(call, "responses", status)...)
	media := r.header.Get("Content-Type")
	switch content, _ := d.at(append(call, "responses", status, "content")...); {
	case answer == nil:
		t.Errorf("%s does not describe the answer %s to %s %s: %s", openAPIFile, status, method, target, r.body)
		return
	case content == nil:
		return
	}
	schema, pointer := d.at(append(call, "responses", status, "content", media, "schema")...)
	switch {
	case schema == nil:
		t.Errorf("%s does not describe a body of %q in the answer %s to %s %s", openAPIFile, media, status, method, target)
		return
	case media == "application/x-ndjson":
		_, pointer = d.at("components", "schemas", "Result")
		for line := range strings.Lines(r.body) {
			d.valid(t, pointer, line)
		}
		return
	}
	d.valid(t, pointer, r.body)
	headers, _ := d.at(append(call, "responses", status, "headers")...)
	described, _ := headers.(map[string]any)
	for _, name := range []string{"Retry-After", "Www-Authenticate"} {
		if r.header.Get(name) != "" && described[name] == nil && described[strings.ToUpper(name[:3])+name[3:]] == nil {
			t.Errorf("%s does not describe the header %s in the answer %s to %s %s", openAPIFile, name, status, method, target)
		}
	}
}

func (d described) valid(t testing.TB, pointer, body string) {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
	if err != nil {
		t.Errorf("%v: %s", err, body)
		return
	}
	if err := d.compiled(t, pointer).Validate(value); err != nil {
		t.Errorf("%s is not what %s says: %v", body, openAPIFile, err)
	}
}

var compiling sync.Mutex

func (d described) compiled(t testing.TB, pointer string) *jsonschema.Schema {
	t.Helper()
	compiling.Lock()
	defer compiling.Unlock()
	s, err := d.schemas.Compile(openAPIFile + "#" + pointer)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The document is served, names each call and each code, and knows good requests from bad ones.
func TestOpenAPI(t *testing.T) {
	n := start(t, setup{})
	d := openAPI()
	r := n.ask(t, request("GET", "/v1/openapi.json", "")).wantStatus(http.StatusOK)
	if r.body != string(d.text) || r.header.Get("Content-Type") != "application/json" {
		t.Errorf("%v %s", r.header, r.body)
	}
	var doc struct {
		Paths map[string]map[string]any
	}
	if err := json.Unmarshal(d.text, &doc); err != nil {
		t.Fatal(err)
	}
	for path, calls := range doc.Paths {
		for method := range calls {
			if got := n.ask(t, request(strings.ToUpper(method), path, "")).status; got == http.StatusNotFound || got == http.StatusMethodNotAllowed {
				t.Errorf("%s %s is answered with %d", method, path, got)
			}
		}
	}
	text, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		call, ok := strings.CutPrefix(line, "| `")
		method, rest, _ := strings.Cut(call, " ")
		path, _, _ := strings.Cut(rest, "`")
		if path, _, _ = strings.Cut(path, "?"); ok && strings.HasPrefix(path, "/v1/") && doc.Paths[path][strings.ToLower(method)] == nil {
			t.Errorf("%s does not describe %s %s", openAPIFile, method, path)
		}
	}
	names, _ := d.at("components", "schemas", "Code", "enum")
	var codes []any
	for _, c := range wire.Codes() {
		codes = append(codes, c.String())
	}
	if got := names.([]any); !slices.Equal(got, codes) {
		t.Errorf("codes %v, want %v", got, codes)
	}
	for _, x := range []struct {
		schema, body string
		good         bool
	}{
		{"Publish", event("a", "1"), true},
		{"Publish", `{"type":"publish","id":"1","topic":"a","token":"x","data":null,"new":1}`, true},
		{"Publish", `{"topic":"a"}`, false},
		{"Publish", `{"topic":"","data":1}`, false},
		{"Publish", `{"topic":1,"data":1}`, false},
		{"Publish", `{"type":"subscribe","topic":"a","data":1}`, false},
		{"Revocation", `{"jti":"1"}`, true},
		{"Revocation", `{"sub":"ann","before":"2026-02-01T10:00:00Z","iss":"x"}`, true},
		{"Revocation", `{"jti":"1","sub":"ann"}`, false},
		{"Revocation", `{"jti":"1","until":1}`, false},
		{"Revocation", `{}`, false},
	} {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(x.body))
		if err != nil {
			t.Fatal(err)
		}
		_, pointer := d.at("components", "schemas", x.schema)
		if err := d.compiled(t, pointer).Validate(value); (err == nil) != x.good {
			t.Errorf("%s: %v", x.body, err)
		}
	}
}
