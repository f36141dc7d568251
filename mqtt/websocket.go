package mqtt

import (
	"encoding/binary"
	"io"
)

// The frames of RFC 6455 section 5.2.
const (
	wsContinuation = 0
	wsText         = 1
	wsBinary       = 2
	wsClose        = 8
	wsPing         = 9
	wsPong         = 10

	wsFinal     = 0x80
	wsReserved  = 0x70
	wsMasked    = 0x80
	wsControl   = 8
	maxControl  = 125
	maxWSHeader = 14
)

// The close codes of RFC 6455 section 7.4.1.
const (
	wsNormal      = 1000
	wsGoingAway   = 1001
	wsProtocol    = 1002
	wsUnsupported = 1003
	wsTooLarge    = 1009
)

// webSocket takes MQTT out of the frames of one client, where they lie. It
// needs no buffer: what it holds between reads is a header, and a control frame.
type webSocket struct {
	most uint64 // bytes of one message

	head [maxWSHeader]byte // of the frame that begins, as far as it came
	have int
	left uint64 // payload bytes of the frame still to come
	mask uint32 // in the byte order of the machine, turned as far as it was used
	op   byte
	open bool   // a fragmented message is under way
	size uint64 // of the message so far
	ctl  []byte // payload of a control frame so far

	code uint16 // with which we close, 0 = as the end of the connection says
	err  error  // found behind bytes that were still good
}

// decode moves what b carries of MQTT to its front, and returns how much that
// is. Pings are answered.
func (w *webSocket) decode(b []byte, answer func(frame []byte)) (int, error) {
	n := 0
	for rest := b; len(rest) > 0; {
		used, data, err := w.step(rest, answer)
		if err != nil {
			if w.err = err; n > 0 {
				return n, nil // it is told after them
			}
			return 0, err
		}
		n += copy(b[n:], rest[:data])
		rest = rest[used:]
	}
	return n, nil
}

// step takes what it can off the front of b: a piece of a header, or of a
// payload, of which data bytes stay there.
func (w *webSocket) step(b []byte, answer func([]byte)) (used, data int, err error) {
	if w.left == 0 {
		used, err = w.header(b)
		if err != nil || w.have > 0 || w.left > 0 {
			return used, 0, err
		}
		if w.op&wsControl != 0 { // it is empty
			return used, 0, w.control(answer)
		}
		return used, 0, nil
	}
	k := int(min(w.left, uint64(len(b))))
	w.unmask(b[:k])
	w.left -= uint64(k)
	if w.op&wsControl == 0 {
		return k, k, nil
	}
	w.ctl = append(w.ctl, b[:k]...)
	if w.left > 0 {
		return k, 0, nil
	}
	return k, 0, w.control(answer)
}

// header gathers a header, and takes it once it is whole.
func (w *webSocket) header(b []byte) (used int, err error) {
	for used < len(b) {
		w.head[w.have] = b[used]
		w.have++
		used++
		if w.have < 2 {
			continue
		}
		if w.have == 2 {
			if err := w.check(); err != nil {
				return used, err
			}
		}
		at := 2
		length := uint64(w.head[1] &^ wsMasked)
		switch length {
		case 126:
			at = 4
		case 127:
			at = 10
		}
		if w.have < at+4 {
			continue
		}
		switch at {
		case 4:
			length = uint64(binary.BigEndian.Uint16(w.head[2:]))
		case 10:
			length = binary.BigEndian.Uint64(w.head[2:])
		}
		w.mask = binary.NativeEndian.Uint32(w.head[at:])
		w.have = 0
		return used, w.begin(length)
	}
	return used, nil
}

// check judges the first two bytes of a frame, RFC 6455 sections 5.2 to 5.5.
func (w *webSocket) check() error {
	first, second := w.head[0], w.head[1]
	w.op = first & 15
	switch {
	case first&wsReserved != 0:
		return w.broken(wsProtocol, "reserved bits are set")
	case second&wsMasked == 0:
		return w.broken(wsProtocol, "frame is not masked")
	case w.op > wsBinary && w.op < wsClose || w.op > wsPong:
		return w.broken(wsProtocol, "opcode is not known")
	case w.op&wsControl != 0 && (first&wsFinal == 0 || second&^wsMasked > maxControl):
		return w.broken(wsProtocol, "control frame is fragmented or too long")
	case w.op == wsText:
		return w.broken(wsUnsupported, "text frame; MQTT is binary")
	case w.op == wsBinary && w.open, w.op == wsContinuation && !w.open:
		return w.broken(wsProtocol, "fragments are out of order")
	}
	return nil
}

// begin starts the payload of a frame.
func (w *webSocket) begin(length uint64) error {
	w.left = length
	if w.op&wsControl != 0 {
		return nil
	}
	if w.op == wsBinary {
		w.size = 0
	}
	if length > w.most || w.size+length > w.most {
		return w.broken(wsTooLarge, "message is too large")
	}
	w.size += length
	w.open = w.head[0]&wsFinal == 0
	return nil
}

// control takes a control frame that is whole.
func (w *webSocket) control(answer func([]byte)) error {
	payload := w.ctl
	w.ctl = nil
	switch w.op {
	case wsPing:
		answer(append(appendFrameHead(nil, wsPong, len(payload)), payload...))
	case wsClose:
		w.code = wsNormal
		if len(payload) >= 2 {
			w.code = binary.BigEndian.Uint16(payload)
		}
		if len(payload) == 1 || w.code < wsNormal || w.code >= 5000 || w.code >= 1004 && w.code <= 1006 || w.code == 1015 {
			return w.broken(wsProtocol, "close code is not one to send")
		}
		return io.EOF
	}
	return nil
}

func (w *webSocket) broken(code uint16, text string) error {
	w.code = code
	return &faultError{success, "WebSocket: " + text, closeProtocol}
}

// unmask lays the mask over b, and turns it for what follows.
func (w *webSocket) unmask(b []byte) {
	wide := uint64(w.mask) | uint64(w.mask)<<32
	for len(b) >= 8 {
		binary.NativeEndian.PutUint64(b, binary.NativeEndian.Uint64(b)^wide)
		b = b[8:]
	}
	if len(b) == 0 {
		return
	}
	var m [4]byte
	binary.NativeEndian.PutUint32(m[:], w.mask)
	for i := range b {
		b[i] ^= m[i&3]
	}
	k := len(b) & 3
	turned := [4]byte{m[k], m[(k+1)&3], m[(k+2)&3], m[(k+3)&3]}
	w.mask = binary.NativeEndian.Uint32(turned[:])
}

// appendFrameHead appends the header of a whole frame of ours, which is not
// masked.
func appendFrameHead(b []byte, op byte, n int) []byte {
	switch {
	case n < 126:
		return append(b, wsFinal|op, byte(n))
	case n <= 0xFFFF:
		return binary.BigEndian.AppendUint16(append(b, wsFinal|op, 126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(b, wsFinal|op, 127), uint64(n))
	}
}

// closeFrame says goodbye: with the client's own code, with ours for what it
// did wrong, or for why the connection ends.
func (w *webSocket) closeFrame(f *faultError) []byte {
	code := w.code
	switch {
	case code != 0:
	case f != nil && f.why == closeServer:
		code = wsGoingAway
	default:
		code = wsNormal
	}
	return binary.BigEndian.AppendUint16(appendFrameHead(nil, wsClose, 2), code)
}
