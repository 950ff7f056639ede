package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/rpc"

	"github.com/golang/protobuf/ptypes/wrappers"
	"github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

var handshake = plugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "GOPLUG_BENCH", MagicCookieValue: "echo"}

type echoer interface {
	Call(request []byte) ([]byte, error)
}

func hostGoPlugin(protocol string) func(job) (*running, error) {
	return func(told job) (*running, error) {
		command := pluginCommand(told)
		client := plugin.NewClient(&plugin.ClientConfig{
			HandshakeConfig:  handshake,
			Plugins:          map[string]plugin.Plugin{protocol: plugins[protocol]},
			Cmd:              command,
			AllowedProtocols: []plugin.Protocol{plugin.Protocol(protocol)},
			Logger:           hclog.New(&hclog.LoggerOptions{Output: io.Discard}),
		})
		connection, err := client.Client()
		if err != nil {
			client.Kill()
			return nil, err
		}
		found, err := connection.Dispense(protocol)
		if err != nil {
			client.Kill()
			return nil, err
		}
		called, ok := found.(echoer)
		if !ok {
			return nil, fmt.Errorf("another plugin")
		}
		return &running{command.Process.Pid, called.Call, client.Kill}, nil
	}
}

var plugins = map[string]plugin.Plugin{"grpc": &overGRPC{}, "netrpc": &overNetRPC{}}

func servePlugin(protocol string) func() {
	return func() { serve(protocol) }
}

func serve(protocol string) {
	config := &plugin.ServeConfig{
		HandshakeConfig: handshake,
		Plugins:         map[string]plugin.Plugin{protocol: plugins[protocol]},
	}
	if protocol == "grpc" {
		config.GRPCServer = func(options []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(options, grpc.MaxRecvMsgSize(math.MaxInt32))...)
		}
	}
	plugin.Serve(config)
}

// net/rpc

type overNetRPC struct{}

func (*overNetRPC) Server(*plugin.MuxBroker) (interface{}, error) { return &rpcServer{}, nil }

func (*overNetRPC) Client(_ *plugin.MuxBroker, client *rpc.Client) (interface{}, error) {
	return &rpcCaller{client}, nil
}

type rpcServer struct{}

func (*rpcServer) Call(request []byte, reply *[]byte) error {
	*reply = request
	return nil
}

type rpcCaller struct{ client *rpc.Client }

func (caller *rpcCaller) Call(request []byte) (reply []byte, err error) {
	err = caller.client.Call("Plugin.Call", request, &reply)
	return reply, err
}

// gRPC: the service as its generator would describe it, on the well-known message that holds bytes.

type overGRPC struct{ plugin.NetRPCUnsupportedPlugin }

func (*overGRPC) GRPCServer(_ *plugin.GRPCBroker, server *grpc.Server) error {
	server.RegisterService(&service, &grpcServer{})
	return nil
}

func (*overGRPC) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, connection *grpc.ClientConn) (interface{}, error) {
	return &grpcCaller{connection}, nil
}

type grpcEcho interface {
	Call(context.Context, *wrappers.BytesValue) (*wrappers.BytesValue, error)
}

type grpcServer struct{}

func (*grpcServer) Call(_ context.Context, request *wrappers.BytesValue) (*wrappers.BytesValue, error) {
	return request, nil
}

var service = grpc.ServiceDesc{
	ServiceName: "bench.Echo",
	HandlerType: (*grpcEcho)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Call",
		Handler: func(server interface{}, ctx context.Context, decode func(interface{}) error, _ grpc.UnaryServerInterceptor) (interface{}, error) {
			request := new(wrappers.BytesValue)
			if err := decode(request); err != nil {
				return nil, err
			}
			return server.(grpcEcho).Call(ctx, request)
		},
	}},
}

type grpcCaller struct{ connection *grpc.ClientConn }

func (caller *grpcCaller) Call(request []byte) ([]byte, error) {
	reply := new(wrappers.BytesValue)
	all := []grpc.CallOption{grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)}
	err := caller.connection.Invoke(context.Background(), "/bench.Echo/Call", &wrappers.BytesValue{Value: request}, reply, all...)
	return reply.GetValue(), err
}
