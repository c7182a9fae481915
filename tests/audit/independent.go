// Checks a log with an implementation that is not ours: golang.org/x/mod/sumdb's signed notes and transparency logs.
//
//	independent VKEY-FILE RECORDS.jsonl RECEIPT...
//
// Each receipt's signature, tree size and root must be those of the tree over the records; its record must be in it; and
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
	var size int64
	var root tlog.Hash
	for _, name := range os.Args[3:] {
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
	fmt.Printf("%d records, %d receipts, tree of %d\n", len(records), len(os.Args)-3, size)
}
