// Checks a log with an implementation that is not ours: golang.org/x/mod/sumdb's signed notes and transparency logs.
//
//	independent VKEY-FILE RECORDS.jsonl TILES-FOLDER RECEIPT...
//
// The tiles must be those of the checkpoint beside them, and hold the records. Each receipt's signature, tree size and root must be those of the tree over the records; its record must be in it; and
// each tree must continue the one before.
package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func file(name string) string {
	data, err := os.ReadFile(name)
	must(err)
	return string(data)
}

func decoded(text string) []byte {
	data, err := base64.StdEncoding.DecodeString(text)
	must(err)
	return data
}

func hash(text string) (found tlog.Hash) {
	if copy(found[:], decoded(text)) != tlog.HashSize {
		must(fmt.Errorf("a hash of another size"))
	}
	return found
}

type tiles struct{ folder string }

func (t tiles) Height() int                                   { return 8 }
func (t tiles) SaveTiles(wanted []tlog.Tile, data [][]byte) {}
func (t tiles) ReadTiles(wanted []tlog.Tile) (found [][]byte, err error) {
	for _, tile := range wanted {
		place := strings.Replace(tile.Path(), "tile/8/", "tile/", 1) // C2SP leaves the height out
		data, err := os.ReadFile(t.folder + "/" + place)
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func checkTiles(folder string, verifier note.Verifier, records []string) {
	opened, err := note.Open([]byte(file(folder+"/checkpoint")), note.VerifierList(verifier))
	must(err)
	tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + strings.SplitN(opened.Text, "\n", 2)[1]))
	must(err)
	if tree.N != int64(len(records)) {
		must(fmt.Errorf("the tiles have another size"))
	}
	reader := tlog.TileHashReader(tree, tiles{folder}) // checks each tile against the root
	for n := int64(0); n < tree.N; n++ {
		hashes, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, n)})
		must(err)
		bundle := tlog.Tile{H: 8, L: 0, N: n / 256, W: 256}
		if tree.N-bundle.N*256 < 256 {
			bundle.W = int(tree.N % 256)
		}
		data := []byte(file(folder + "/" + strings.Replace(bundle.Path(), "tile/8/0/", "tile/entries/", 1)))
		for i := int64(0); i < n%256; i++ {
			data = data[2+int(data[0])<<8+int(data[1]):]
		}
		record := string(data[2 : 2+int(data[0])<<8+int(data[1])])
		if record != records[n] || tlog.RecordHash([]byte(record)) != hashes[0] {
			must(fmt.Errorf("record %d of the tiles is another", n))
		}
	}
}

func main() {
	verifier, err := note.NewVerifier(strings.TrimSpace(file(os.Args[1])))
	must(err)
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		found := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			found[i] = stored[index]
		}
		return found, nil
	})
	records := strings.Split(strings.TrimSuffix(file(os.Args[2]), "\n"), "\n")
	for n, record := range records {
		added, err := tlog.StoredHashes(int64(n), []byte(record), reader)
		must(err)
		stored = append(stored, added...)
	}
	checkTiles(os.Args[3], verifier, records)
	var size int64
	var root tlog.Hash
	for _, name := range os.Args[4:] {
		head, signed, _ := strings.Cut(file(name), "\n\n")
		lines := strings.Split(head, "\n")
		record := decoded(strings.TrimPrefix(lines[1], "extra "))
		index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
		must(err)
		var proof tlog.RecordProof
		for _, line := range lines[3:] {
			proof = append(proof, hash(line))
		}
		opened, err := note.Open([]byte(signed), note.VerifierList(verifier))
		must(err)
		checkpoint := strings.Split(opened.Text, "\n")
		claimed, err := strconv.ParseInt(checkpoint[1], 10, 64)
		must(err)
		must(tlog.CheckRecord(proof, claimed, hash(checkpoint[2]), index, tlog.RecordHash(record)))
		computed, err := tlog.TreeHash(claimed, reader)
		must(err)
		if checkpoint[0] != verifier.Name() || computed != hash(checkpoint[2]) || string(record) != records[index] {
			must(fmt.Errorf("%s: not the log's origin, root or record", name))
		}
		if size > 0 {
			continues, err := tlog.ProveTree(claimed, size, reader)
			must(err)
			must(tlog.CheckTree(continues, claimed, computed, size, root))
		}
		size, root = claimed, computed
	}
	fmt.Printf("%d records, %d receipts, tree of %d\n", len(records), len(os.Args)-4, size)
}
