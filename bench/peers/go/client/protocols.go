package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strconv"
)

var (
	headEnd = []byte("\r\n\r\n")
	lineEnd = []byte("\r\n")
)

// head takes the head of an HTTP/1.1 response; it ends the process unless the status is the given one.
func head(one *conn, data []byte, status string) ([]byte, bool) {
	end := bytes.Index(data, headEnd)
	if end < 0 {
		return data, false
	}
	if !bytes.HasPrefix(data, []byte("HTTP/1.1 "+status)) {
		fail("refused: %q", data[:min(len(data), 400)])
	}
	one.headed = true
	if len(one.then) > 0 {
		send(one, one.then)
	} else if command.Peer == "" {
		isOpen(one)
	}
	return data[end+4:], true
}

// --- WebSocket ------------------------------------------------------------------------------------------------------

// websocket takes frames; it returns what is no whole frame yet, and whether nothing had to be answered.
func websocket(one *conn, data []byte) ([]byte, bool) {
	if !one.headed {
		var ok bool
		if data, ok = head(one, data, "101"); !ok {
			return data, false
		}
	}
	quiet := true
	for len(data) >= 2 {
		size, start := int(data[1]), 2
		if size == 126 {
			if len(data) < 4 {
				break
			}
			size, start = int(binary.BigEndian.Uint16(data[2:])), 4
		} else if size == 127 {
			if len(data) < 10 {
				break
			}
			size, start = int(binary.BigEndian.Uint64(data[2:])), 10
		}
		if len(data) < start+size {
			break
		}
		payload := data[start : start+size]
		switch data[0] {
		case 0x81:
			quiet = text(one, payload) && quiet
		case 0x89:
			send(one, append([]byte{0x8a, 0x80 | byte(size), 0, 0, 0, 0}, payload...)) // a mask of zeros changes nothing
			quiet = false
		default:
			fail("a frame that begins with %x: %q", data[0], payload)
		}
		data = data[start+size:]
	}
	return data, quiet
}

func text(one *conn, payload []byte) bool {
	if command.Peer != "centrifugo" {
		if !bytes.HasPrefix(payload, []byte(`{"event"`)) { // what a relay says about a resume
			emit(&one.streams[0], payload)
		}
		return true
	}
	quiet := true
	for _, line := range bytes.Split(payload, []byte("\n")) {
		switch {
		case len(line) == 0:
		case len(line) == 2: // {}, a ping; it is answered with the same
			send(one, []byte{0x81, 0x82, 0, 0, 0, 0, '{', '}'})
			quiet = false
		default:
			if bytes.Contains(line[:min(len(line), 40)], []byte(`"subscribe"`)) {
				isOpen(one)
			}
			publications(one, line)
		}
	}
	return quiet
}

// --- Centrifugo -----------------------------------------------------------------------------------------------------

// known are lines that have been read, so that the same line of thousands of streams is read once.
var known = map[string][][]byte{}

// publications takes each publication of a reply or a push in JSON.
func publications(one *conn, line []byte) {
	found, ok := known[string(line)]
	if !ok {
		found = parsed(line)
		if len(known) > 512 {
			clear(known)
		}
		if len(found) > 0 {
			known[string(line)] = found
		}
	}
	for _, each := range found {
		emit(&one.streams[0], each)
	}
}

func parsed(line []byte) [][]byte {
	type publication struct {
		Data json.RawMessage
	}
	type push struct {
		Pub *publication
	}
	var reply struct {
		Push      *push
		Pub       *publication
		Subscribe *struct {
			Publications []publication
		}
		Error json.RawMessage
	}
	if json.Unmarshal(line, &reply) != nil || reply.Error != nil {
		fail("Centrifugo sent %q", line)
	}
	if reply.Push != nil {
		reply.Pub = reply.Push.Pub
	}
	var found [][]byte
	if reply.Pub != nil {
		found = append(found, reply.Pub.Data)
	}
	if reply.Subscribe != nil {
		for _, each := range reply.Subscribe.Publications {
			found = append(found, each.Data)
		}
	}
	return found
}

// field returns a field of a protobuf message that is itself bytes; nil when it has none. Other types must be varints.
func field(message []byte, number uint64) []byte {
	for len(message) > 0 {
		tag, size := binary.Uvarint(message)
		message = message[size:]
		length, size := binary.Uvarint(message)
		message = message[size:]
		if tag&7 == 0 {
			continue
		}
		if tag&7 != 2 || uint64(len(message)) < length {
			fail("not understood: %q", message)
		}
		if tag>>3 == number {
			return message[:length]
		}
		message = message[length:]
	}
	return nil
}

// --- SSE ------------------------------------------------------------------------------------------------------------

// sse takes chunks of an event stream; it returns what is no whole chunk yet.
func sse(one *conn, data []byte) []byte {
	if !one.headed {
		var ok bool
		if data, ok = head(one, data, "200"); !ok {
			return data
		}
	}
	at := &one.streams[0]
	for {
		end := bytes.Index(data[:min(len(data), 20)], lineEnd)
		if end < 0 {
			break
		}
		size, err := strconv.ParseUint(string(data[:end]), 16, 31)
		check(err, "the size of a chunk")
		if len(data) < end+2+int(size)+2 {
			break
		}
		if size == 0 {
			fail("the server ended an event stream")
		}
		at.content = append(at.content, data[end+2:end+2+int(size)]...)
		data = data[end+2+int(size)+2:]
	}
	content := at.content
	for {
		end := blank(content)
		if end < 0 {
			break
		}
		event(one, content[:end])
		content = bytes.TrimLeft(content[end:], "\r\n")
	}
	if len(content) == 0 {
		at.content = at.content[:0]
	} else {
		at.content = append([]byte(nil), content...)
	}
	return data
}

// blank returns where the first block ends; -1 when it is not whole.
func blank(content []byte) int {
	at := bytes.Index(content, []byte("\n\n"))
	if other := bytes.Index(content, headEnd); other >= 0 && (at < 0 || other < at) {
		return other
	}
	return at
}

func event(one *conn, block []byte) {
	for _, line := range bytes.Split(block, []byte("\n")) {
		line = bytes.TrimSuffix(line, []byte("\r"))
		if bytes.HasPrefix(line, []byte("event:")) { // what a relay says about a resume
			return
		}
		data, ok := bytes.CutPrefix(line, []byte("data: "))
		if !ok {
			continue
		}
		if command.Peer == "centrifugo" {
			isOpen(one)
			publications(one, data)
		} else {
			emit(&one.streams[0], data)
		}
	}
}

// --- gRPC -----------------------------------------------------------------------------------------------------------

const (
	frameData         = 0
	frameHeaders      = 1
	frameSettings     = 4
	framePing         = 6
	frameWindowUpdate = 8
	flagEnd           = 1
	flagAck           = 1
)

// http2 takes frames; it returns what is no whole frame yet, and whether nothing had to be answered.
func http2(one *conn, data []byte) ([]byte, bool) {
	quiet := true
	for len(data) >= 9 {
		size := int(data[0])<<16 | int(data[1])<<8 | int(data[2])
		if len(data) < 9+size {
			break
		}
		kind, flags, id := data[3], data[4], binary.BigEndian.Uint32(data[5:])
		payload := data[9 : 9+size]
		switch {
		case kind == frameData:
			messages(one, &one.streams[id/2], payload)
		case kind == frameHeaders && flags&flagEnd == 0:
			if id == uint32(2*len(one.streams)-1) && command.Peer == "" {
				isOpen(one)
			}
		case (kind == frameSettings || kind == framePing) && flags&flagAck == 0:
			if kind == frameSettings {
				payload = nil
			}
			send(one, append([]byte{0, 0, byte(len(payload)), kind, flagAck, 0, 0, 0, 0}, payload...))
			quiet = false
		case kind == frameSettings, kind == framePing, kind == frameWindowUpdate:
		default:
			if again(one) {
				return nil, false
			}
			fail("a call was ended: %q", data[:9+size])
		}
		data = data[9+size:]
	}
	return data, quiet
}

func messages(one *conn, at *stream, payload []byte) {
	if len(at.content) > 0 {
		payload = append(at.content, payload...)
		at.content = nil
	}
	for len(payload) >= 5 {
		end := 5 + int(binary.BigEndian.Uint32(payload[1:]))
		if len(payload) < end {
			break
		}
		if payload[0] != 0 {
			fail("a compressed message, which was not asked for")
		}
		message := payload[5:end]
		if command.Peer == "centrifugo" {
			isOpen(one)                               // the first push is about the connection
			if pub := field(message, 4); pub != nil { // Push.pub
				emit(at, field(pub, 4)) // Publication.data
			}
		} else {
			emit(at, message)
		}
		payload = payload[end:]
	}
	at.content = append([]byte(nil), payload...)
}
