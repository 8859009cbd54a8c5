// Command client opens many streams of one protocol, and reads them all in one thread with epoll.
//
// It takes commands as lines of JSON on standard input and answers each with one line on standard output:
//
//	{"open": N, ...}  opens N more streams; answers when all of them are open, or with "storm" at once
//	{"wait": K}       answers when every stream has K messages since the start
//	{"dump": A}       answers with all messages from number A on
//	{"counts": true}  answers with how many messages each stream has, and how many connections were opened again
//
// All streams must get the same messages: those of the first to have them are kept, and the others are compared. The
// process ends with a sentence on standard error when a stream gets another message, or ends.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

// Command is one line of standard input.
type Command struct {
	Open       int      // streams to open
	Protocol   string   // websocket, sse, grpc
	Peer       string   // centrifugo, or empty: every message counts
	Port       int      // on this machine
	Requests   [][]byte // what each connection sends first, in turn
	Thens      [][]byte // what each sends when that is answered, in turn
	PerStreams int      // streams of each connection; their ids in HTTP/2 are 1, 3, ...
	AtOnce     int      // connections that may be opening at a time
	Storm      bool     // streams may get messages while others are opening, and the answer comes at once
	Wait       int
	Dump       *int
	Counts     bool
}

type conn struct {
	fd      int
	opened  bool
	sent    bool
	then    []byte
	headed  bool // the response has begun
	streams []stream
	raw     []byte // the beginning of a frame or chunk
}

type stream struct {
	messages int
	content  []byte // the beginning of a message
}

// step is what some bytes meant for one stream, and mean for others at the same place.
type step struct {
	from, to int
	data     []byte
}

var (
	command   Command
	conns     = map[int32]*conn{}
	all       []*conn
	poll      int
	total     int      // streams
	reference [][]byte // all messages
	missing   []int    // by message: streams that do not have it
	done      []int64  // by message: when the last stream had it, in ns of the monotonic clock
	steps     [16]step
	nextStep  int
	opening   int
	toOpen    int
	requested int
	waiting   int
	begun     int64
	retries   int
	answered  = true
)

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", values...)
	os.Exit(1)
}

func check(err error, what string) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

func answer(value any) {
	line, err := json.Marshal(value)
	check(err, "answer")
	os.Stdout.Write(append(line, '\n'))
}

// now is the clock of time.monotonic in Python.
func now() int64 {
	var at syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&at)), 0)
	return at.Nano()
}

func main() {
	runtime.LockOSThread()
	var err error
	poll, err = syscall.EpollCreate1(0)
	check(err, "epoll")
	watch(syscall.EPOLL_CTL_ADD, 0, syscall.EPOLLIN)
	events := make([]syscall.EpollEvent, 1024)
	buffer := make([]byte, 1<<18)
	var lines []byte
	for {
		count, err := syscall.EpollWait(poll, events, -1)
		if err == syscall.EINTR {
			continue
		}
		check(err, "epoll")
		for _, event := range events[:count] {
			if event.Fd == 0 {
				length, err := syscall.Read(0, buffer)
				check(err, "standard input")
				if length == 0 {
					return
				}
				lines = append(lines, buffer[:length]...)
				for {
					end := bytes.IndexByte(lines, '\n')
					if end < 0 {
						break
					}
					obey(lines[:end])
					lines = append([]byte(nil), lines[end+1:]...)
				}
				continue
			}
			one := conns[event.Fd]
			if !one.sent {
				greet(one)
				continue
			}
			length, err := syscall.Read(one.fd, buffer)
			if err == syscall.EAGAIN {
				continue
			}
			if err != nil || length == 0 {
				if again(one) {
					continue
				}
				fail("the server ended a stream with %d of %d messages: %v %q", one.streams[0].messages, len(reference), err, one.raw)
			}
			receive(one, buffer[:length])
		}
		if waiting > 0 && len(done) >= waiting && missing[waiting-1] == 0 {
			answer(map[string]any{"at_ns": done[:waiting]})
			waiting = 0
		}
	}
}

func obey(line []byte) {
	var given Command
	check(json.Unmarshal(line, &given), "command")
	switch {
	case given.Open > 0:
		command = given
		total += given.Open
		toOpen = given.Open / max(1, given.PerStreams)
		opening, answered, begun = 0, false, now()
		for message := range missing {
			missing[message] += given.Open
		}
		if given.Storm {
			answered = true
			answer(map[string]any{"began_ns": begun})
		}
		connect()
	case given.Wait > 0:
		waiting = given.Wait
	case given.Dump != nil:
		answer(map[string]any{"messages": reference[min(*given.Dump, len(reference)):]})
	case given.Counts:
		counts := []int{}
		for _, one := range all {
			for at := range one.streams {
				counts = append(counts, one.streams[at].messages)
			}
		}
		answer(map[string]any{"counts": counts, "retries": retries})
	default:
		fail("unknown command %s", line)
	}
}

func watch(operation, fd int, events uint32) {
	event := syscall.EpollEvent{Events: events, Fd: int32(fd)}
	check(syscall.EpollCtl(poll, operation, fd, &event), "epoll_ctl")
}

// connect opens as many connections as may be opening.
func connect() {
	for opening < command.AtOnce && toOpen > 0 {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK, 0)
		check(err, "socket")
		err = syscall.Connect(fd, &syscall.SockaddrInet4{Port: command.Port, Addr: [4]byte{127, 0, 0, 1}})
		if err != nil && err != syscall.EINPROGRESS {
			fail("connect: %v", err)
		}
		one := &conn{fd: fd, streams: make([]stream, max(1, command.PerStreams))}
		conns[int32(fd)] = one
		all = append(all, one)
		watch(syscall.EPOLL_CTL_ADD, fd, syscall.EPOLLOUT)
		opening++
		toOpen--
		if command.Storm { // each is a client of its own, which does not wait for the others to connect
			greet(one)
		}
	}
}

// again opens a connection of a storm again that the server has ended before it was open, as clients do.
func again(one *conn) bool {
	if one.opened || !command.Storm {
		return false
	}
	delete(conns, int32(one.fd))
	check(syscall.Close(one.fd), "close")
	for at, other := range all {
		if other == one {
			all = append(all[:at], all[at+1:]...)
			break
		}
	}
	retries++
	opening--
	toOpen++
	connect()
	return true
}

// greet sends the request of a connection that is connected.
func greet(one *conn) {
	if command.Peer == "bare" { // nothing is asked of it
		one.headed = true
		isOpen(one)
	} else {
		data := command.Requests[requested%len(command.Requests)]
		length, err := syscall.Write(one.fd, data)
		if err == syscall.EAGAIN { // it is not connected yet
			return
		}
		if err != nil || length != len(data) {
			fail("send: %d of %d bytes: %v", length, len(data), err)
		}
	}
	if len(command.Thens) > 0 {
		one.then = command.Thens[requested%len(command.Thens)]
	}
	requested++
	one.sent = true
	watch(syscall.EPOLL_CTL_MOD, one.fd, syscall.EPOLLIN)
}

func send(one *conn, data []byte) {
	length, err := syscall.Write(one.fd, data)
	if err != nil || length != len(data) {
		fail("send: %d of %d bytes: %v", length, len(data), err)
	}
}

// isOpen notes that a connection is open.
func isOpen(one *conn) {
	if one.opened {
		return
	}
	one.opened = true
	opening--
	connect()
	if opening == 0 && toOpen == 0 && !answered {
		answered = true
		answer(map[string]any{"took_s": time.Duration(now() - begun).Seconds()})
	}
}

// receive goes through what a connection has read.
func receive(one *conn, data []byte) {
	first := &one.streams[0]
	plain := one.opened && len(one.streams) == 1 && len(one.raw) == 0 && len(first.content) == 0
	from := first.messages
	if plain {
		for at := range steps {
			known := &steps[at]
			if known.from == from && len(known.data) == len(data) && bytes.Equal(known.data, data) {
				advance(first, known.to)
				return
			}
		}
	}
	whole := data
	if len(one.raw) > 0 {
		whole = append(one.raw, data...)
		one.raw = nil
	}
	quiet := true
	var rest []byte
	switch command.Protocol {
	case "websocket":
		rest, quiet = websocket(one, whole)
	case "sse":
		rest = sse(one, whole)
	case "grpc":
		rest, quiet = http2(one, whole)
	default:
		fail("unknown protocol %q", command.Protocol)
	}
	one.raw = append([]byte(nil), rest...)
	if plain && quiet && len(rest) == 0 && len(first.content) == 0 && first.messages > from {
		steps[nextStep%len(steps)] = step{from, first.messages, append([]byte(nil), data...)}
		nextStep++
	}
}

// emit takes one message of a stream.
func emit(one *stream, message []byte) {
	if one.messages == len(reference) {
		reference = append(reference, append([]byte(nil), message...))
		missing = append(missing, total)
		done = append(done, 0)
	} else if kept := reference[one.messages]; &kept[0] != &message[0] && !bytes.Equal(kept, message) {
		fail("message %d of a stream is %q, of others %q", one.messages, message, kept)
	}
	advance(one, one.messages+1)
}

func advance(one *stream, to int) {
	for ; one.messages < to; one.messages++ {
		missing[one.messages]--
		if missing[one.messages] == 0 {
			done[one.messages] = now()
		}
	}
}
