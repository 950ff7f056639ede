// A plugin that is a shared object, in Go: the labels of src/lib.rs.
//
//	CGO_CFLAGS=-I$PWD/../../shared-object/include go build -buildmode=c-shared -o greeter.so greeter.go
package main

// Go cannot call a pointer to a function by itself.

// #include <goplug.h>
// #include <stdlib.h>
// static const char *label_of(goplug_context *cx) { return cx->label; }
// static size_t get(goplug_context *cx, const char *key, char *to, size_t capacity) { return cx->get(cx, key, to, capacity); }
// static int32_t set(goplug_context *cx, const char *key, const char *json) { return cx->set(cx, key, json); }
// static int64_t remaining_ms(goplug_context *cx) { return cx->remaining_ms(cx); }
// static int32_t cancelled(goplug_context *cx, uint32_t ms) { return cx->cancelled(cx, ms); }
// static void fail(goplug_context *cx, const char *why) { cx->fail(cx, why); }
import "C"

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"unsafe"
)

type context struct{ c *C.goplug_context }

func (cx context) get(key string, to any) error {
	name := C.CString(key)
	defer C.free(unsafe.Pointer(name))
	text := make([]byte, 256)
	for {
		length := int(C.get(cx.c, name, (*C.char)(unsafe.Pointer(&text[0])), C.size_t(len(text))))
		if length < len(text) {
			return json.Unmarshal(text[:length], to)
		}
		text = make([]byte, length+1)
	}
}

func (cx context) set(key string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	name, data := C.CString(key), C.CString(string(text))
	defer C.free(unsafe.Pointer(name))
	defer C.free(unsafe.Pointer(data))
	if C.set(cx.c, name, data) != C.GOPLUG_SET {
		return fmt.Errorf("value %s is not taken", key)
	}
	return nil
}

func (cx context) fail(why any) {
	text := C.CString(fmt.Sprint(why))
	defer C.free(unsafe.Pointer(text))
	C.fail(cx.c, text)
}

//export Execute
func Execute(c *C.goplug_context) (returned C.int32_t) {
	cx := context{c}
	defer func() {
		if panicked := recover(); panicked != nil {
			cx.fail(panicked)
			returned = C.GOPLUG_PANICKED
		}
	}()
	if err := run(cx, C.GoString(C.label_of(c))); err != nil {
		cx.fail(err)
		return C.GOPLUG_FAILED
	}
	return C.GOPLUG_DONE
}

func run(cx context, label string) error {
	switch label {
	case "greet":
		var name string
		if err := cx.get("name", &name); err != nil {
			return err
		}
		return cx.set("greeting", "hello "+name)
	case "divide":
		var number, by int64
		if err := cx.get("number", &number); err != nil {
			return err
		}
		if err := cx.get("by", &by); err != nil {
			return err
		}
		return cx.set("quotient", number/by)
	case "wait":
		rounds := 0
		if err := cx.set("remaining_ms", int64(C.remaining_ms(cx.c))); err != nil {
			return err
		}
		for C.cancelled(cx.c, 100) == 0 {
			rounds++
		}
		fmt.Fprintf(os.Stdout, "wait was cancelled after %d rounds\n", rounds)
		return errors.New("nobody waits")
	}
	return fmt.Errorf("there is no label `%s`", label)
}

func main() {}
