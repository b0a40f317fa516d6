package main

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// decodeList reads a list of mappings, written as YAML, of which JSON is a part. T is a struct whose yaml tags name the
// members. The error has a line for each mistake; such a line begins with the place, [0].name, so that a caller can put
// the key of the list before it.
func decodeList[T any](text []byte) (list []T, err error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var elements []yaml.Node
	switch err := d.Decode(&elements); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%s; write a list whose elements have %s", plainly(err), membersOf[T]())
	case !errors.Is(d.Decode(new(yaml.Node)), io.EOF):
		return nil, errors.New("more than one document; write one list")
	}
	var errs []error
	for i := range elements {
		var element T
		for _, err := range decodeMembers(&elements[i], &element) {
			errs = append(errs, fmt.Errorf("[%d]%w", i, err))
		}
		list = append(list, element)
	}
	return list, errors.Join(errs...)
}

// decodeMembers reads a mapping into the struct that into points to.
func decodeMembers[T any](node *yaml.Node, into *T) (errs []error) {
	members := map[string]yaml.Node{}
	if err := node.Decode(&members); err != nil {
		return []error{fmt.Errorf(": %s; write %s, each with its value", plainly(err), membersOf[T]())}
	}
	target := reflect.ValueOf(into).Elem()
	for field, value := range target.Fields() {
		name := field.Tag.Get("yaml")
		member, given := members[name]
		delete(members, name)
		if !given || member.Tag == "!!null" {
			continue
		}
		if err := decodeMember(&member, value); err != nil {
			errs = append(errs, fmt.Errorf(".%s: %s", name, badMember(&member, value, err)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		errs = append(errs, fmt.Errorf(".%s: unknown member%s", name, didYouMean(name, memberNames[T]())))
	}
	return errs
}

var errRounded = errors.New("the parser would cut off what follows the point")

func decodeMember(node *yaml.Node, into reflect.Value) error {
	if d, ok := into.Addr().Interface().(*time.Duration); ok && node.Kind == yaml.ScalarNode {
		var err error
		*d, err = time.ParseDuration(node.Value)
		return err
	}
	if node.Tag == "!!float" && into.CanInt() {
		return errRounded
	}
	return node.Decode(into.Addr().Interface())
}

// badMember says what is wrong with a value that could not be decoded.
func badMember(node *yaml.Node, into reflect.Value, err error) string {
	_, yamls := into.Addr().Interface().(yaml.Unmarshaler)
	_, texts := into.Addr().Interface().(encoding.TextUnmarshaler)
	value := strconv.Quote(node.Value)
	if node.Kind != yaml.ScalarNode {
		value = "a list or a mapping"
	}
	switch {
	case yamls && into.Kind() != reflect.Slice, texts && node.Kind == yaml.ScalarNode:
		return plainly(err)
	case into.Type() == reflect.TypeFor[time.Duration]():
		return value + " is not a time; write one such as 72h or 90s"
	case into.CanInt():
		return value + " is not a whole number"
	case into.Kind() == reflect.Bool:
		return value + " is neither true nor false"
	case into.Kind() == reflect.Slice:
		return value + " is not a list of texts"
	}
	return value + " is not a text"
}

func memberNames[T any]() (names []string) {
	for field := range reflect.TypeFor[T]().Fields() {
		names = append(names, field.Tag.Get("yaml"))
	}
	return names
}

// membersOf is "name, keys and type".
func membersOf[T any]() string {
	names := memberNames[T]()
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// plainly is an error of the YAML parser without lines of a text that nobody has seen, and without Go types.
func plainly(err error) string {
	return strings.Join(strings.Fields(yamlNoise.ReplaceAllString(err.Error(), " ")), " ")
}

var yamlNoise = regexp.MustCompile(`yaml: |unmarshal errors:|line \d+:|at line \d+| into \S+`)
