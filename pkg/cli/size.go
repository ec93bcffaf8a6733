// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// AddSizeFlag adds a flag of bytes, such as 500M or 2G: multiples of 1024 each.
func AddSizeFlag(flags *pflag.FlagSet, name string, value int64) *int64 {
	flags.Var((*size)(&value), name, "")
	return &value
}

type size int64

var errSize = errors.New("want a number of bytes, or one with K, M or G behind it")

func (s *size) Set(text string) error {
	digits := strings.TrimRight(text, "KMG")
	factor := int64(1) << (10 * (1 + strings.Index("KMG", text[len(digits):])))
	if digits == text {
		factor = 1
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || len(text) > len(digits)+1 || n > math.MaxInt64/factor {
		return errSize
	}
	*s = size(n * factor)
	return nil
}

func (s *size) String() string { return strconv.FormatInt(int64(*s), 10) }
func (s *size) Type() string   { return "size" }
