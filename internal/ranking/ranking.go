// Package ranking turns latency samples into estimates, and estimates into a
// ranking of the servers of a service that stays the same while nothing has
// changed. docs/ranking.md describes the rule and how well it chooses.
//
// The package is pure: the caller passes the time, and nothing starts a
// goroutine or reads a file. The server and bench/replay run the same code.
package ranking

import "time"

// Round is the length of a decision round. Samples are collected per round, and
// rules count rounds, so faster probing does not make switches faster.
const Round = 5 * time.Second

// roundAt returns the number of the round at a time. Rounds are aligned, so the
// rounds of all targets end at the same time.
func roundAt(t time.Time) int64 { return t.UnixNano() / int64(Round) }
