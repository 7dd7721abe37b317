// Package operator has what the commands of the program do for an operator: it asks
// servers for explanations, and edits admin files.
package operator

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ResolveTime returns the words of an override with the time after "until" as admin
// files have it. Besides that form an operator may write +90m, +2h or +1d, a time of
// day (18:00: the next one), or a date with or without a time (2026-01-31T18:00), all
// in local time.
func ResolveTime(words []string, now time.Time) ([]string, error) {
	end := slices.Index(words, "reason")
	if end < 0 {
		end = len(words)
	}
	i := slices.Index(words[:end], "until")
	if i < 0 || i+1 >= end {
		return words, nil // the grammar of overrides has the error
	}
	at, err := parseTime(words[i+1], now)
	if err != nil {
		return nil, err
	}
	if !at.After(now) {
		return nil, fmt.Errorf("'until %s' is not in the future: now is %s", words[i+1], now.Format("2006-01-02T15:04:05Z07:00"))
	}
	resolved := slices.Clone(words)
	resolved[i+1] = at.UTC().Format(time.RFC3339)
	return resolved, nil
}

func parseTime(word string, now time.Time) (time.Time, error) {
	if text, relative := strings.CutPrefix(word, "+"); relative {
		if days, ok := strings.CutSuffix(text, "d"); ok {
			if n, err := strconv.Atoi(days); err == nil {
				return now.AddDate(0, 0, n), nil
			}
		}
		if d, err := time.ParseDuration(text); err == nil {
			return now.Add(d), nil
		}
	}
	if at, err := time.Parse(time.RFC3339, word); err == nil {
		return at, nil
	}
	if at, err := time.ParseInLocation("15:04", word, now.Location()); err == nil {
		next := time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), 0, 0, now.Location())
		if !next.After(now) {
			next = time.Date(now.Year(), now.Month(), now.Day()+1, at.Hour(), at.Minute(), 0, 0, now.Location())
		}
		return next, nil
	}
	for _, form := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if at, err := time.ParseInLocation(form, word, now.Location()); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("invalid time '%s': expected +2h, 18:00, 2026-01-31T18:00, or date, time and zone such as 2026-01-31T18:00:00Z", word)
}
