package broker

// blockSize is what a Buffer takes at least at once.
const blockSize = 256 << 10

// Buffer is memory for the bytes of messages, used again and again. What was put
// into it is good until Reset. The zero value is ready to use; a nil *Buffer gives
// memory that stays its owner's. It is for one goroutine at a time.
type Buffer struct {
	blocks [][]byte
	block  int // that Take cuts from
	used   int // of it
}

// Take returns n bytes with anything in them, and no room behind them.
func (b *Buffer) Take(n int) []byte {
	if b == nil {
		return make([]byte, n)
	}
	for ; b.block < len(b.blocks); b.block, b.used = b.block+1, 0 {
		if from, end := b.used, b.used+n; end <= len(b.blocks[b.block]) {
			b.used = end
			return b.blocks[b.block][from:end:end]
		}
	}
	b.blocks, b.used = append(b.blocks, make([]byte, max(n, blockSize))), n
	return b.blocks[b.block][:n:n]
}

// Reset takes back everything that Take returned.
func (b *Buffer) Reset() {
	if b != nil {
		b.block, b.used = 0, 0
	}
}

// Size is how many bytes b holds on to.
func (b *Buffer) Size() (n int) {
	for _, block := range b.blocks {
		n += len(block)
	}
	return n
}
