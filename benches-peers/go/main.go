// HashiCorp's go-plugin and Go's own HTTP as subjects of `goplug-bench --with`: `list CASES`, `host JOB`, and for itself
// `plugin SUBJECT`.
package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
)

type benchCase struct {
	Work     string `json:"work"`
	Size     int    `json:"size"`
	InFlight int    `json:"in_flight"`
}

type job struct {
	benchCase
	Subject   string `json:"subject"`
	WarmUpMs  int    `json:"warm_up_ms"`
	TimeMs    int    `json:"time_ms"`
	MinCalls  int    `json:"min_calls"`
	PluginCPU *int   `json:"plugin_cpu"`
}

// A subject starts its plugin for a job and says how to call it.
type subject struct {
	host   func(job) (*running, error)
	plugin func()
}

// A started plugin.
type running struct {
	pid  int
	call func(request []byte) ([]byte, error)
	stop func()
}

var subjects = map[string]subject{
	"go-plugin-grpc":   {hostGoPlugin("grpc"), servePlugin("grpc")},
	"go-plugin-netrpc": {hostGoPlugin("netrpc"), servePlugin("netrpc")},
	"go-net-http":      {hostHTTP, serveHTTP},
}

var names = []string{"go-plugin-grpc", "go-plugin-netrpc", "go-net-http"}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("use `list CASES` or `host JOB`, each with JSON; `goplug-bench` does so")
	}
	switch args[0] {
	case "list":
		return list(args[1])
	case "host":
		var told job
		if err := json.Unmarshal([]byte(args[1]), &told); err != nil {
			return err
		}
		measured, err := host(told)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(measured)
	case "plugin":
		subjects[args[1]].plugin()
		return nil
	}
	return fmt.Errorf("unknown verb `%s`", args[0])
}

func list(asked string) error {
	var cases, taken []benchCase
	if err := json.Unmarshal([]byte(asked), &cases); err != nil {
		return err
	}
	for _, one := range cases {
		// Sums are made by programs that have them in common; bodies of 64 MiB are echoed.
		if one.Work == "echo" {
			taken = append(taken, one)
		}
	}
	for _, name := range names {
		if err := json.NewEncoder(os.Stdout).Encode(map[string]any{"name": name, "cases": taken}); err != nil {
			return err
		}
	}
	return nil
}

func host(told job) (*measured, error) {
	found, ok := subjects[told.Subject]
	if !ok {
		return nil, fmt.Errorf("there is no subject `%s`", told.Subject)
	}
	plugin, err := found.host(told)
	if err != nil {
		return nil, err
	}
	defer plugin.stop()
	request := payload(told.Size)
	return measure(told, plugin.pid, func() error {
		reply, err := plugin.call(request)
		if err != nil {
			return err
		}
		return check(request, reply)
	})
}

func payload(size int) []byte {
	bytes := make([]byte, size)
	for i := range bytes {
		bytes[i] = byte(i*31) ^ byte(i>>8)
	}
	return bytes
}

// Compares length and ends: comparing all of it would be measured, too.
func check(request, reply []byte) error {
	if len(request) != len(reply) {
		return fmt.Errorf("a reply of %d bytes instead of %d", len(reply), len(request))
	}
	last := len(request) - 8
	if binary.LittleEndian.Uint64(request) != binary.LittleEndian.Uint64(reply) ||
		binary.LittleEndian.Uint64(request[last:]) != binary.LittleEndian.Uint64(reply[last:]) {
		return fmt.Errorf("a reply of other bytes")
	}
	return nil
}
