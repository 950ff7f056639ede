package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

const socketVariable = "GOPLUG_BENCH_SOCKET"

// This program once more as the plugin, on its cpu.
func pluginCommand(told job) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	if told.PluginCPU == nil {
		return exec.Command(self, "plugin", told.Subject)
	}
	return exec.Command("taskset", "-c", strconv.Itoa(*told.PluginCPU), self, "plugin", told.Subject)
}

func hostHTTP(told job) (*running, error) {
	dir, err := os.MkdirTemp("", "goplug-bench")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "peer.sock")
	command := pluginCommand(told)
	command.Env = append(os.Environ(), socketVariable+"="+socket)
	command.Stderr = os.Stderr
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	input, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	if _, err := bufio.NewReader(output).ReadString('\n'); err != nil {
		return nil, fmt.Errorf("the plugin is not ready: %w", err)
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: told.InFlight,
	}}
	call := func(request []byte) ([]byte, error) {
		reply, err := client.Post("http://peer/echo", "application/octet-stream", bytes.NewReader(request))
		if err != nil {
			return nil, err
		}
		defer reply.Body.Close()
		body := make([]byte, reply.ContentLength)
		_, err = io.ReadFull(reply.Body, body)
		return body, err
	}
	stop := func() {
		input.Close()
		command.Wait()
		os.RemoveAll(dir)
	}
	return &running{command.Process.Pid, call, stop}, nil
}

func serveHTTP() {
	listener, err := net.Listen("unix", os.Getenv(socketVariable))
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	go http.Serve(listener, http.HandlerFunc(func(reply http.ResponseWriter, request *http.Request) {
		body := make([]byte, request.ContentLength)
		if _, err := io.ReadFull(request.Body, body); err != nil {
			return
		}
		reply.Header().Set("Content-Length", strconv.Itoa(len(body)))
		reply.Write(body)
	}))
	fmt.Println("ready")
	// The host's end closes it.
	io.Copy(io.Discard, os.Stdin)
}
