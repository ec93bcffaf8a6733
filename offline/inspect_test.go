// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"keyferry/offline/internal/survey"
	"keyferry/pkg/control"
	"keyferry/pkg/inspect"
	"keyferry/test/scripttest"
	"keyferry/test/vectors"
)

// inspectAll runs offline inspect with the vectors' password.
func inspectAll(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	password := filepath.Join(t.TempDir(), "pw")
	if err := os.WriteFile(password, []byte(scripttest.Password), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, said bytes.Buffer
	args = append([]string{"inspect", "--protection-password-file", password, "--state", "nowhere"}, args...)
	code = newApp().Run(t.Context(), args, strings.NewReader(""), &out, &said)
	return code, out.String(), said.String()
}

// exportAs writes an export under a name and returns its path.
func exportAs(t *testing.T, dir, name string, export []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, export, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Names that would write more than a name, and how they are shown.
var evilNames = map[string]string{
	"evil\x1b[31m\nverdict       can become an HSM key\u202e.xml": `"evil\x1b[31m\nverdict       can become an HSM key\u202e.xml"`,
	"  verdict       can become an HSM key":                       `"  verdict       can become an HSM key"`,
	"\xff.xml":                                                    `\xff.xml`,
	"a\u200bb.xml":                                                `a\u200bb.xml`,
}

// A file's name is shown as a name, whatever the file is good for.
func TestInspectNames(t *testing.T) {
	bad, good := vectors.OneTPD(t, "bad-crt-parameter").XML, vectors.OneTPD(t, "contoso-mode2").XML
	for name, shown := range evilNames {
		for _, export := range [][]byte{bad, good, []byte("no TPD"), nil} {
			path := filepath.Join(t.TempDir(), name)
			if export != nil {
				exportAs(t, filepath.Dir(path), name, export)
			}
			_, stdout, stderr := inspectAll(t, "--verbose", path, path)
			if !strings.HasPrefix(stdout, shown+"\n") {
				t.Errorf("%q is shown as %q", name, stdout[:min(80, len(stdout))])
			}
			if !bytes.Equal(export, good) && !strings.Contains(stderr, "error: "+shown+": ") {
				t.Errorf("%q: %q", name, stderr)
			}
			for _, r := range strings.ReplaceAll(stdout+stderr, "\n", "") {
				if r == utf8.RuneError || !unicode.IsPrint(r) {
					t.Fatalf("%q writes %q", name, r)
				}
			}
			if !bytes.Equal(export, good) && regexp.MustCompile(`(?m)^ {0,8}verdict +can become`).MatchString(stdout) {
				t.Errorf("%q forges a verdict:\n%s", name, stdout)
			}
		}
	}
	for _, name := range []string{"contoso.xml", "a b (1).xml", "契約書.xml", `O"Neill\x.xml`} {
		if got := inspect.FileName("x/" + name); got != name {
			t.Errorf("%q is shown as %s", name, got)
		}
	}
}

// However many the files are and however wide their names, 80 columns hold what
// is said of them together.
func TestInspectWidth(t *testing.T) {
	dir := t.TempDir()
	names := []string{"contoso-mode1", "contoso-mode2", "contoso-anyone", "contoso-no-templates", "bad-slc-digest", "contoso-legacy-kdf"}
	var paths []string
	for i := range 120 {
		name := fmt.Sprint("契約書の鍵、日本語の長い名前 ", i)
		if i%2 == 0 {
			name = fmt.Sprint("a rather long name of an export, as people give them, number ", i)
		}
		paths = append(paths, exportAs(t, dir, name, vectors.OneTPD(t, names[i%len(names)]).XML))
	}
	_, stdout, _ := inspectAll(t, paths...)
	at := strings.Index(stdout, "\n#")
	if at < 0 {
		t.Fatalf("no table:\n%s", stdout)
	}
	lines, columns := 0, 0
	for line := range strings.Lines(stdout[at+1:]) {
		lines++
		line = strings.TrimRight(line, "\n")
		columns = max(columns, utf8.RuneCountInString(line))
		if strings.ContainsFunc(strings.ReplaceAll(line, "…", ""), func(r rune) bool { return r > unicode.MaxASCII }) {
			t.Errorf("not ASCII, so not of known width: %s", line)
		}
	}
	if columns > 80 || columns < 78 || lines < 130 {
		t.Errorf("%d columns, %d lines:\n%s", columns, lines, stdout[at:])
	}
	if regexp.MustCompile(`(?m)^.{81}`).MatchString(strings.ReplaceAll(stdout[:at], "−", "-")) {
		t.Errorf("more than 80 columns:\n%s", stdout[:at])
	}
}

// withGUID is a vector whose certificate says another GUID, of the same length.
func withGUID(t *testing.T, name, guid string) []byte {
	t.Helper()
	v := vectors.OneTPD(t, name)
	field := regexp.MustCompile(`(<m_strTrustedDocDomainInfo>)([^<]+)`)
	ciphertext, err := base64.StdEncoding.DecodeString(string(field.FindSubmatch(v.XML)[2]))
	if err != nil {
		t.Fatal(err)
	}
	var utf16 []byte
	for _, c := range v.Password { // ASCII
		utf16 = append(utf16, c, 0)
	}
	key := sha256.Sum256(utf16)
	block, err := aes.NewCipher(key[:16])
	if err != nil {
		t.Fatal(err)
	}
	iv := []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(ciphertext, ciphertext)
	ciphertext = regexp.MustCompile(`(?i)`+strings.Trim(v.GUID, "{}")).ReplaceAll(ciphertext, []byte(strings.Trim(guid, "{}")))
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(ciphertext, ciphertext)
	return field.ReplaceAll(v.XML, []byte("${1}"+base64.StdEncoding.EncodeToString(ciphertext)))
}

// Files of one GUID with different keys are refused, all of them, and none is
// suggested; one file twice, or two keys, are not.
func TestInspectConflict(t *testing.T) {
	dir := t.TempDir()
	mode2 := vectors.OneTPD(t, "contoso-mode2")
	one := exportAs(t, dir, "one.xml", mode2.XML)
	again := exportAs(t, dir, "again.xml", mode2.XML)
	forged := exportAs(t, dir, "forged.xml", withGUID(t, "contoso-anyone", mode2.GUID))
	third := exportAs(t, dir, "third.xml", vectors.OneTPD(t, "contoso-colon-name").XML)

	code, stdout, stderr := inspectAll(t, one, third, forged)
	message := "different keys have the GUID " + strings.ToLower(strings.Trim(mode2.GUID, "{}")) + ", in the files one.xml, forged.xml [" + control.TPDGUIDUnique.ID + "]"
	if code != 1 || strings.Count(stderr, message+"\noffline: hint: ") != 1 {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	for _, want := range []string{"verdict       must not be used: different keys", "Conflict: 1, 3 have one GUID", "make active: 2 (third.xml)"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("lacks %q:\n%s", want, stdout)
		}
	}
	if strings.Count(stdout, "can become an HSM key\n") != 2 { // third.xml's verdict, and in the table
		t.Errorf("a file in conflict can become an HSM key:\n%s", stdout)
	}

	code, stdout, _ = inspectAll(t, "--json", one, third, forged)
	var doc struct {
		Files  []inspect.File
		Survey survey.Survey
	}
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil {
		t.Fatal(err)
	}
	if f := doc.Files[0]; code != 1 || f.Error != message || f.Control != control.TPDGUIDUnique.ID || f.Hint != control.TPDGUIDUnique.Hint || f.Report == nil || doc.Files[1].Control != "" {
		t.Errorf("exit code %d: %+v", code, f)
	}
	if c := doc.Survey.Conflicts; len(c) != 1 || !slices.Equal(c[0], []int{0, 2}) {
		t.Errorf("conflicts %v", c)
	}

	if code, stdout, stderr := inspectAll(t, one, again, third); code != 0 || strings.Contains(strings.ReplaceAll(stdout+stderr, filepath.Dir(one), ""), "onflict") {
		t.Errorf("exit code %d, %s%s", code, stdout, stderr)
	}
}

// TestInspectPage holds the names in docs/inspect.md against the JSON.
func TestInspectPage(t *testing.T) {
	page, err := os.ReadFile("../docs/inspect.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, section := range strings.Split(string(page), "\n### `")[1:] {
		of, rows, _ := strings.Cut(section, "`")
		for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(rows, -1) {
			documented = append(documented, of+"."+row[1])
		}
	}
	written := slices.Concat(jsonNames(reflect.TypeFor[inspect.File](), "files[]"), jsonNames(reflect.TypeFor[survey.Survey](), "survey"))
	slices.Sort(documented)
	slices.Sort(written)
	if len(written) < 60 {
		t.Fatalf("only %d names: %q", len(written), written)
	}
	for _, name := range written {
		if !slices.Contains(documented, name) {
			t.Errorf("docs/inspect.md lacks %s", name)
		}
	}
	for _, name := range documented {
		if !slices.Contains(written, name) {
			t.Errorf("docs/inspect.md has %s, which is not written", name)
		}
	}
}

// jsonNames are the names in a type's JSON, with [] for what is in a list.
func jsonNames(of reflect.Type, at string) (names []string) {
	for _, field := range reflect.VisibleFields(of) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		if name == "" {
			if field.IsExported() {
				name = field.Name + " without a name"
			} else {
				continue
			}
		}
		is, path := field.Type, at+"."+name
		switch is.Kind() {
		case reflect.Slice:
			is, path = is.Elem(), path+"[]"
		case reflect.Pointer:
			is = is.Elem()
		}
		names = append(names, path)
		if is.Kind() == reflect.Struct && is != reflect.TypeFor[time.Time]() {
			names = append(names, jsonNames(is, path)...)
		}
	}
	return names
}
