// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// schema is the part of JSON Schema (draft 2020-12) that describes the documents.
type schema struct {
	Schema      string             `json:"$schema,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Type        any                `json:"type,omitempty"` // a name, or several
	Properties  map[string]*schema `json:"properties,omitempty"`
	Required    []string           `json:"required,omitempty"`
	Additional  *bool              `json:"additionalProperties,omitempty"`
	Items       *schema            `json:"items,omitempty"`
	Defs        map[string]*schema `json:"$defs,omitempty"`
}

func (s *schema) types() []string {
	switch t := s.Type.(type) {
	case string:
		return []string{t}
	case []string:
		return t
	case []any:
		var names []string
		for _, name := range t {
			names = append(names, fmt.Sprint(name))
		}
		return names
	}
	return nil
}

// check holds a document against a schema, and returns what breaks it.
func (s *schema) check(at string, value any) (breaches []string) {
	kind := kindOf(value)
	if s.Type != nil && !slices.Contains(s.types(), kind) {
		return []string{fmt.Sprintf("%s is of type %s, not %v", at, kind, s.Type)}
	}
	switch v := value.(type) {
	case map[string]any:
		if s.Properties == nil {
			return nil
		}
		for name, below := range v {
			if s.Properties[name] == nil {
				breaches = append(breaches, at+"."+name+" is not described")
				continue
			}
			breaches = append(breaches, s.Properties[name].check(at+"."+name, below)...)
		}
		for _, name := range s.Required {
			if _, there := v[name]; !there {
				breaches = append(breaches, at+"."+name+" is missing")
			}
		}
	case []any:
		for i, below := range v {
			if s.Items != nil {
				breaches = append(breaches, s.Items.check(fmt.Sprintf("%s[%d]", at, i), below)...)
			}
		}
	}
	return breaches
}

func kindOf(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case float64:
		return "number"
	case string:
		return "string"
	case []any:
		return "array"
	}
	return "object"
}

// free are objects whose names are data: of records by their kind, of languages.
var free = []string{"entries", "data", "headers", "names", "descriptions"}

// take widens a schema so that a document fits it.
func (s *schema) take(name string, value any) {
	kinds := s.types()
	if kind := kindOf(value); !slices.Contains(kinds, kind) {
		kinds = append(kinds, kind)
		slices.Sort(kinds)
	}
	if s.Type = any(kinds); len(kinds) == 1 {
		s.Type = kinds[0]
	}
	switch v := value.(type) {
	case map[string]any:
		isFile := func(name string) bool { return strings.ContainsAny(name, ".-") }
		if slices.Contains(free, name) || slices.ContainsFunc(slices.Collect(maps.Keys(v)), isFile) {
			return
		}
		first := s.Properties == nil
		if first {
			closed := false
			s.Properties, s.Additional, s.Required = map[string]*schema{}, &closed, slices.Sorted(maps.Keys(v))
		}
		for below, it := range v {
			if s.Properties[below] == nil {
				s.Properties[below] = &schema{}
			}
			s.Properties[below].take(below, it)
		}
		s.Required = slices.DeleteFunc(s.Required, func(name string) bool { _, there := v[name]; return !there })
	case []any:
		for _, it := range v {
			if s.Items == nil {
				s.Items = &schema{}
			}
			s.Items.take(name, it)
		}
	}
}

// documents plays a ceremony, and returns what each command prints with --json. A
// command that is refused is under "error".
func documents(t *testing.T) map[string][]any {
	docs := map[string][]any{}
	p := newPlay(t, true)
	run := func(name, line string) {
		t.Helper()
		cmd := exec.Command("bash", "-c", p.command(line)+" --json")
		cmd.Dir = p.dir
		cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(p.dir, "home"), "KEYFERRY_STATE=", "SOFTHSM2_CONF=")
		out, _ := cmd.Output()
		var doc any
		if err := json.Unmarshal(out, &doc); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		if isError := doc.(map[string]any)["error"] != nil; isError != (name == "error") {
			t.Fatalf("%s: %s", line, out)
		}
		docs[name] = append(docs[name], doc)
	}
	for name, password := range map[string]string{"pw": "Passw0rd!", "pw2": "Pässw0rd!"} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.copy("contoso-mode1.xml", "old.xml")
	p.rehearse("ssh-keygen -q -t ed25519 -N '' -C alice -f alice")
	const kek = " --exchange-key-package /media/stick/BYOK-KEK-pkg-NA-1"
	run("error", "online kek create --out /media/stick")
	run("online next", "online next")
	run("offline next", "offline next")
	run("online init", "online init --tenant kit --approver alice.pub")
	run("offline init", "offline init --out /media/stick")
	run("offline selftest", "offline selftest")
	run("online kek create", "online kek create --size 2048 --out /media/stick")
	run("online trust", "online trust --yes /media/stick/offline-card-offline.json")
	run("offline trust", "offline trust --yes /media/stick/BYOK-SecurityWorld-pkg-NA-1")
	run("offline packages verify", "offline packages verify -k /media/stick/BYOK-KEK-pkg-NA-1 -w /media/stick/BYOK-SecurityWorld-pkg-NA-1")
	run("offline inspect", "offline inspect contoso.xml fabrikam.xml --protection-password-file pw --protection-password-file pw2")
	importing := "offline import --microsoft-managed --tpd-file-path contoso.xml --key-identifier contoso-slc --tpd-file-path old.xml --key-identifier old --protection-password-file pw" + kek
	run("offline import", importing+" --dry-run")
	run("offline status", "offline status")
	run("offline import", importing)
	run("offline seal", "offline seal --out /media/stick")
	run("offline approve", "offline approve")
	p.rehearse("ssh-keygen -q -Y sign -f alice -n keyferry-bundle-v2 /media/stick/keyferry-offline-1.request.json")
	run("offline approve", "offline approve --signature /media/stick/keyferry-offline-1.request.json.sig")
	run("offline seal", "offline seal --out /media/stick")
	run("offline next", "offline next")
	const bundle = " /media/stick/keyferry-offline-1.kfb"
	run("online verify", "online verify"+bundle)
	run("online package", "online package"+bundle+" --out transfer")
	upload := "online upload" + bundle + " --active contoso-slc --protection-password-file pw --protection-password-file pw"
	run("online upload", upload+" --dry-run")
	run("error", upload)
	run("online next", "online next")
	run("online upload", upload+" --tenant practice")
	run("online import-tpd", "online import-tpd --tenant practice --tpd-file transfer/no_key_tpd_contoso-slc.xml --hsm-key-file transfer/KeyTransferPackage-contoso-slc.byok --protection-password-file pw --dry-run")
	run("online receipt", "online receipt"+bundle+" --out /media/stick")
	run("offline receipt", "offline receipt /media/stick/keyferry-online-1.kfb")
	run("online approvers", "online approvers --approver alice.pub --out /media/stick")
	run("online kek fetch", "online kek fetch --out /media/stick")
	for _, program := range []string{"offline", "online"} {
		for _, show := range []string{"status", "next", "fingerprint", "transcript", "transcript verify", "doctor"} {
			run(program+" "+show, program+" "+show)
		}
		run(program+" transcript", program+" transcript --sheet text")
		p.rehearse("mkdir " + program)
		run(program+" runsheet", program+" runsheet --out "+program)
	}
	run("online inspect", "online inspect transfer/no_key_tpd_contoso-slc.xml --protection-password-file pw")
	run("offline rehearsal clean", "offline rehearsal clean --yes")
	return docs
}

// unplayed have a document that is described by hand elsewhere: it needs a token of
// one's own, or serves until it is interrupted.
var unplayed = map[string]string{"offline wrap": "as `offline import`", "online practice serve": "see its help"}

// Each document that a command prints with --json is as docs/json-schema.json has it,
// which says what each field means; docs/json.md is made of the same. Set UPDATE_DOCS
// to take over what a run prints: describe each new field in meanings.
func TestJSON(t *testing.T) {
	t.Parallel()
	docs := documents(t)
	for _, program := range []string{"offline", "online"} {
		out, err := exec.Command(program, "--help").Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			if name := program + " " + strings.TrimSpace(line[:min(20, len(line))]); strings.HasPrefix(line, "  ") && line[2] != ' ' && docs[name] == nil && unplayed[name] == "" {
				t.Errorf("%s was not run with --json", name)
			}
		}
	}
	all := schema{Schema: "https://json-schema.org/draft/2020-12/schema", Title: "What offline and online print with --json",
		Description: "Each of $defs is the document of one command; error is that of any command which was refused.", Defs: map[string]*schema{}}
	for name, samples := range docs {
		s := &schema{}
		for _, doc := range samples {
			s.take("", doc)
		}
		all.Defs[name] = s
	}
	path, page := filepath.Join("..", "..", "docs", "json-schema.json"), filepath.Join("..", "..", "docs", "json.md")
	if os.Getenv("UPDATE_DOCS") != "" {
		all.describe(t)
		var file bytes.Buffer
		fmt.Fprintf(&file, "{\n\"$schema\": %q,\n\"title\": %q,\n\"description\": %q,\n\"$defs\": {", all.Schema, all.Title, all.Description)
		for i, name := range slices.Sorted(maps.Keys(all.Defs)) {
			def, err := json.Marshal(all.Defs[name])
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&file, "%s\n%q: %s", strings.Repeat(",", min(i, 1)), name, def)
		}
		file.WriteString("\n}\n}\n")
		if err := os.WriteFile(path, file.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var held schema
	if err := json.Unmarshal(file, &held); err != nil {
		t.Fatal(err)
	}
	for name, samples := range docs {
		if held.Defs[name] == nil {
			t.Errorf("the schema lacks %s", name)
			continue
		}
		for _, doc := range samples {
			for _, breach := range held.Defs[name].check(name, doc) {
				t.Errorf("%s (describe it in meanings_test.go, then UPDATE_DOCS=1 go test ./test/docs -run JSON)", breach)
			}
		}
	}
	want := held.page()
	if os.Getenv("UPDATE_DOCS") != "" {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if is, err := os.ReadFile(page); err != nil || string(is) != want {
		t.Errorf("docs/json.md is not what the schema says (%v)", err)
	}
	// The check finds what does not fit.
	for _, bad := range []string{`{}`, `{"sheets": "x", "written": 1}`, `{"sheets": [], "written": 1, "more": true}`, `{"sheets": [1], "written": 1}`} {
		var doc any
		if err := json.Unmarshal([]byte(bad), &doc); err != nil {
			t.Fatal(err)
		}
		if len(held.Defs["online runsheet"].check("x", doc)) == 0 {
			t.Errorf("%s is taken", bad)
		}
	}
}

// describe gives each field its meaning.
func (s *schema) describe(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		if s.Properties[name].Description = meanings[name]; meanings[name] == "" {
			t.Errorf("no meaning: %q", name)
		}
		s.Properties[name].describe(t)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Defs)) {
		s.Defs[name].describe(t)
	}
	if s.Items != nil {
		s.Items.describe(t)
	}
}

const pageHead = `# What --json prints

With ` + "`--json`" + ` a command prints one JSON document on standard output, and nothing else there. A command that is refused prints ` + "`error`" + `, unless
it has printed its own document before, which then says what was wrong; the exit code tells in any case. Fields may be added; none
changes its meaning. [json-schema.json](json-schema.json) is the same for programs. Fingerprints are ` + "`SHA256:`" + ` and hex digits, times RFC 3339 in UTC.
Both files are made from what the commands print (` + "`UPDATE_DOCS=1 go test ./test/docs -run JSON`" + `), and held against it.

`

// page is the schema for people.
func (s *schema) page() string {
	var b strings.Builder
	b.WriteString(pageHead)
	for _, name := range slices.Sorted(maps.Keys(s.Defs)) {
		fmt.Fprintf(&b, "## %s\n\n| field | type | meaning |\n|---|---|---|\n", name)
		s.Defs[name].rows(&b, "")
		b.WriteString("\n")
	}
	b.WriteString("## Others\n\n")
	for _, name := range slices.Sorted(maps.Keys(unplayed)) {
		fmt.Fprintf(&b, "- %s: %s\n", name, unplayed[name])
	}
	return b.String()
}

func (s *schema) rows(b *strings.Builder, above string) {
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		p := s.Properties[name]
		kinds := strings.Join(p.types(), " or ")
		optional := ""
		if !slices.Contains(s.Required, name) {
			optional = ", if there is one"
		}
		fmt.Fprintf(b, "| `%s%s` | %s%s | %s |\n", above, name, kinds, optional, p.Description)
		p.rows(b, above+name+".")
		if p.Items != nil {
			p.Items.rows(b, above+name+"[].")
		}
	}
}
