// SPDX-License-Identifier: Apache-2.0

package sheet

import (
	_ "embed"
	"fmt"
	"html"
	"regexp"
	"strings"

	"keyferry/bundle"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/trust"
)

// Day is what the run sheets of a ceremony are made of. What this side does not know
// yet is empty: the sheet has a word in capitals for it, and a blank to fill in.
type Day struct {
	Rehearsal       bool
	Offline, Online string // names of the sides
	Module, Token   string // of the HSM; none in a rehearsal with practice parts
	SoftwareWrap    bool   // the security officer decided for --wrap software
	Region, Vault   string
	World, KEK      int    // numbers of the packages
	KEKName         string // in the vault
	Tenant          string // practice, powershell or kit
	Approvers       []trust.Approver
	Threshold       int
	Keys            []DayKey
	Active          string   // identifier of the key that becomes active
	Bundle, Receipt uint64   // sequence numbers
	Remains         []string // to be done in the tenant by other means

	Card, WorldPrint, KEKPrint, Manifest fingerprint.Fingerprint // that are read aloud

	Stick   string // its directory on both sides
	Windows bool   // the commands are for PowerShell
	Quote   func(word string) string
	Line    func(program string, words ...string) string
}

// DayKey is a key of the day.
type DayKey struct {
	ID, TPD string
	Managed bool // of 1024 bits: it stays in its TPD
}

// role is whom a run sheet is for; a part of a step may be for several.
type role int

const (
	offlineOperator role = 1 << iota
	onlineOperator
	witness
	officer
	approver

	operators = offlineOperator | onlineOperator
	everyone  = operators | witness | officer
)

var roles = []struct {
	role
	name string
}{
	{offlineOperator, "offline operator"}, {onlineOperator, "online operator"}, {witness, "witness"},
	{officer, "security officer"}, {approver, "approver"},
}

// step is a step of the ceremony, numbered as in docs/ceremony.md.
type step struct {
	title string
	parts []part
}

// part is what one or several roles do in a step.
type part struct {
	roles role
	kind
	text  string
	print fingerprint.Fingerprint // of words that are read aloud
}

type kind int

const (
	note  kind = iota
	run        // a command, whole
	box        // to be ticked
	blank      // a label, and room to write
	words      // to be read aloud
	heard      // room for the words that are heard
)

// steps are the whole ceremony, for all roles, in the order in which it happens.
func (d *Day) steps() []step {
	var steps []step
	begin := func(title string) { steps = append(steps, step{title: title}) }
	add := func(r role, k kind, format string, args ...any) {
		now := &steps[len(steps)-1]
		now.parts = append(now.parts, part{roles: r, kind: k, text: fmt.Sprintf(format, args...)})
	}
	command := func(r role, program string, words ...string) { add(r, run, "%s", d.Line(program, words...)) }
	aloud := func(reader, listener role, what string, print fingerprint.Fingerprint) {
		now := &steps[len(steps)-1]
		now.parts = append(now.parts,
			part{reader | officer, words, what + ": read these words aloud, row by row", print},
			part{listener | witness, heard, what + ": write the words down as they are read", fingerprint.Fingerprint{}})
	}
	carry := func(to string) {
		begin("Carry the stick to the " + to + " side")
		add(witness, box, "The stick went to the %s side, and was never out of sight", to)
		add(everyone&^officer, box, "%s is the stick there, not a directory of the machine's own disk", d.Stick)
	}

	region := orWord(d.Region, "REGION")
	card := d.on(trust.CardName(orWord(d.Offline, "NAME")))
	world, kek := d.on(trust.WorldName(region, max(1, d.World))), d.on(trust.KEKName(region, max(1, d.KEK)))
	offline, number := orWord(d.Offline, "NAME"), max(1, d.Bundle)
	sealed, request := d.on(bundle.FileName(offline, number)), d.on(bundle.RequestName(offline, number))
	receipt := d.on(bundle.FileName(orWord(d.Online, "NAME"), max(1, d.Receipt)))
	keys := d.keys()
	managed := false
	for _, k := range keys {
		managed = managed || k.Managed
	}

	begin("Before the day")
	add(operators, box, "`sha256sum` of the program on this machine is the one both builders wrote down")
	add(operators, box, "The clock of this machine is right; it says: ______________ UTC")
	add(offlineOperator|witness, box, "The disconnected machine has no cable and no radio; `offline doctor` shows no `fail`")
	add(offlineOperator, box, "The TPD exports are on this machine, and their passwords at hand")
	if d.Token != "" || !d.Rehearsal {
		add(offlineOperator, box, "The PIN of the token is at hand; it is tried once")
		add(offlineOperator, box, "Of an HSM with two roles, as the NetHSM: the administrator's secret is at hand too; the run asks for it, or `--hsm-so-pin-file` names it")
	}
	if !d.Rehearsal {
		add(onlineOperator, box, "Signed in to Azure, in the tenant of the vault; `online doctor` shows no `fail`")
	}
	if len(d.Approvers) > 0 || d.World == 0 {
		add(approver, note, "Make your key, with your name in it, and bring its .pub file to the online operator before step 1:")
		add(approver, run, "ssh-keygen -t ed25519 -C YOUR-NAME -f approval-key")
		add(approver, blank, "Fingerprint of your key, by `ssh-keygen -lf approval-key.pub`")
	} else {
		add(approver, note, "This ceremony asks for no approvals: nothing is to be done.")
	}
	for _, unknown := range d.unknown() {
		add(everyone, blank, "%s", unknown)
	}

	begin("1. Set up the connected side")
	command(onlineOperator, "online", d.onlineInit()...)
	command(onlineOperator, "online", "doctor")
	add(onlineOperator|officer, box, "It names the vault %s, and says that it is %s", orWord(d.Vault, "VAULT"), d.kind())
	add(officer, box, "Approvals: %s", d.rule())

	begin("2. Set up the disconnected side")
	command(offlineOperator, "offline", d.offlineInit()...)
	add(offlineOperator|witness, box, "%s is on the stick", card)
	command(offlineOperator, "offline", "fingerprint", "card")

	carry("connected")

	begin("3. Make the key exchange key")
	create := []string{"kek", "create", "--out", d.Stick}
	if d.KEKName != "" && d.KEKName != "keyferry-kek" {
		create = append(create, "--kek-name", d.KEKName)
	}
	command(onlineOperator, "online", create...)
	add(onlineOperator|witness, box, "%s and %s are on the stick", world, kek)
	add(onlineOperator|officer, blank, "KEK, and until when it can be used")

	begin("4. Pin the disconnected side")
	command(onlineOperator, "online", "trust", card)
	aloud(offlineOperator, onlineOperator, "Offline card", d.Card)
	add(onlineOperator|witness, box, "`Pinned: the offline side`")

	carry("disconnected")

	begin("5. Pin the connected side")
	command(offlineOperator, "offline", "trust", world)
	aloud(onlineOperator, offlineOperator, "Security world", d.WorldPrint)
	add(offlineOperator|witness, box, "`Pinned: the security world`, with the vault %s", orWord(d.Vault, "VAULT"))

	begin("6. Check the packages")
	command(offlineOperator, "offline", "packages", "verify", "-k", kek, "-w", world)
	add(offlineOperator, box, "The KEK is the one of step 3, and `Result: SUCCESS`")

	if !strings.Contains(d.Vault, "practice.vault.keyferry.test") {
		add(officer, note, "On a machine that has no part in the ceremony, read the KEK from the vault:")
		add(officer, run, "az keyvault key download --vault-name NAME --name %s --encoding DER --file kek.der", orWord(d.KEKName, "keyferry-kek"))
		add(officer, run, "openssl dgst -sha256 -c kek.der")
		add(officer|offlineOperator, blank, "The KEK's fingerprint, as the security officer reads it from the vault; step 9 asks for it")
	}

	begin("7. Look at the exports")
	for _, k := range keys {
		command(offlineOperator, "offline", "inspect", k.TPD)
	}
	add(offlineOperator|officer, box, "Server, URL, bits and date of issue are those of the AD RMS cluster")
	add(offlineOperator|officer, blank, "Warnings, as they were read")

	begin("8. Try the import")
	into := []string{"import"}
	for _, k := range keys {
		into = append(into, "--tpd-file-path", k.TPD, "--key-identifier", k.ID)
	}
	into = append(into, "--exchange-key-package", kek, "--new-security-world-package", world)
	switch {
	case managed:
		into = append(into, "--microsoft-managed")
		add(officer, blank, "A key of 1024 bits leaves with its TPD: decision and signature")
	default:
		into = append(into, "--keyless-password", "fresh")
	}
	if d.SoftwareWrap {
		into = append(into, "--wrap", "software")
		add(officer, blank, "The key is wrapped in software: decision and signature")
	}
	command(offlineOperator, "offline", append(into, "--dry-run")...)
	add(offlineOperator, box, "`Dry run: every check holds, nothing was changed`")

	begin("9. Import the keys")
	command(offlineOperator, "offline", into...)
	for _, k := range keys {
		add(offlineOperator|witness, box, "%s: it says that the key is in the token and signs, or that it travels in its TPD", k.ID)
	}

	begin("10. Seal the bundle")
	command(offlineOperator, "offline", "seal", "--out", d.Stick)
	if d.Threshold > 0 {
		add(offlineOperator|witness, box, "%s is on the stick, and was taken to %d approvers", request, d.Threshold)
		signed := []string{"approve"}
		for i, a := range d.Approvers {
			file := d.on(fmt.Sprintf("approval-%d.json", i+1))
			add(approver, note, "%s signs, on a machine of their own, once the request was read: which keys, for which KEK, what was overruled.", control.Plain(a.String()))
			add(approver, run, "%s %s %s", d.copies(), d.Quote(request), d.Quote(file))
			add(approver, run, "ssh-keygen -Y sign -f approval-key -n %s %s", bundle.Namespace, d.Quote(file))
			if i < d.Threshold {
				signed = append(signed, "--signature", file+".sig")
			}
		}
		command(offlineOperator, "offline", signed...)
		command(offlineOperator, "offline", "seal", "--out", d.Stick)
	}
	add(offlineOperator|witness, box, "%s is on the stick, and was read back", sealed)
	add(witness|approver|officer, blank, "The first four words of the manifest's fingerprint")

	carry("connected")

	begin("11. Check the bundle")
	command(onlineOperator, "online", "verify", sealed)
	aloud(offlineOperator, onlineOperator, "Manifest of the bundle", d.Manifest)
	add(onlineOperator|witness, box, "`Every check holds`, and keys and manifest are those of step 10")

	if d.Tenant == "kit" && !managed {
		begin("12. Write the transfer files, for the kit's one-time passwords")
		command(onlineOperator, "online", "package", sealed, "--out", "transfer")
	}

	begin("13. Try the upload")
	upload := []string{"upload", sealed}
	active := d.Active
	if active == "" && len(keys) == 1 && !keys[0].Managed {
		active = keys[0].ID
	}
	if active == "" {
		active = "ACTIVE-ID"
	}
	upload = append(upload, "--active", active)
	command(onlineOperator, "online", append(upload, "--dry-run")...)
	add(onlineOperator|officer, box, "The plan is what is wanted: names, and the one key that becomes active")
	add(onlineOperator|officer, blank, "The tenant. A TPD goes into one tenant only, ever")

	begin("14. Upload")
	command(onlineOperator, "online", upload...)
	for _, k := range keys {
		add(onlineOperator|witness, blank, "Key URL of %s, with its version", k.ID)
	}
	if d.Tenant == "kit" {
		begin("14a. Hand over to Windows")
		add(onlineOperator, note, "In Windows PowerShell 5.1, in the folder that step 14 wrote, once its script was read:")
		add(onlineOperator, run, "powershell.exe -ExecutionPolicy RemoteSigned -File import-tpds.ps1")
		command(onlineOperator, "online", "upload", sealed, "--result", "keyferry-result.json")
	}
	add(onlineOperator|witness, box, "`active in the tenant`: %s", active)

	begin("15. Seal the receipt")
	command(onlineOperator, "online", "receipt", sealed, "--out", d.Stick)
	add(onlineOperator|witness, box, "%s is on the stick, and was read back", receipt)

	carry("disconnected")

	begin("16. Close the ledger")
	command(offlineOperator, "offline", "receipt", receipt)
	add(offlineOperator|witness|officer, box, "`What was sent is what arrived. The ledger is closed for this bundle.`")

	begin("17. Keep the record")
	for _, side := range []struct {
		role
		program string
	}{{offlineOperator, "offline"}, {onlineOperator, "online"}} {
		command(side.role, side.program, "status")
		command(side.role, side.program, "transcript", "verify")
		command(side.role, side.program, "transcript", "--sheet", "html", "--out", "sheet-"+side.program+".html")
	}
	add(everyone, box, "The sheets of both sides were printed and signed; refused runs on them were explained")

	begin("18. What remains in the tenant, once each")
	remains := d.Remains
	if len(remains) == 0 {
		remains = []string{
			"publish the imported templates, which arrive archived: Set-AipServiceTemplateProperty -TemplateId ID -Status Published",
			"activate the service, unless it is: Enable-AipService",
			"redirect clients that know the licensing URLs of the AD RMS cluster, as `online next` lists them",
		}
	}
	for _, r := range remains {
		add(onlineOperator|officer, box, "%s", r)
	}
	return steps
}

// keys are those of the day; before they are known, one to be filled in.
func (d *Day) keys() []DayKey {
	if len(d.Keys) == 0 {
		return []DayKey{{ID: "KEY-ID", TPD: "TPD.xml"}}
	}
	keys := append([]DayKey{}, d.Keys...)
	for i := range keys {
		if keys[i].TPD == "" {
			keys[i].TPD = fmt.Sprintf("TPD-%d.xml", i+1)
		}
	}
	return keys
}

// unknown names what has a word in capitals.
func (d *Day) unknown() (names []string) {
	for _, known := range []struct{ is, name string }{
		{d.Offline, "NAME of the disconnected side"}, {d.Online, "NAME of the connected side"}, {d.Region, "REGION"}, {d.Vault, "VAULT"},
	} {
		if known.is == "" {
			names = append(names, known.name)
		}
	}
	if d.Token == "" && !d.Rehearsal {
		names = append(names, "MODULE and LABEL of the HSM")
	}
	for _, k := range d.keys() {
		if k.ID == "KEY-ID" {
			names = append(names, "KEY-ID, and its export TPD.xml")
		} else if strings.HasPrefix(k.TPD, "TPD-") {
			names = append(names, k.TPD+", the export of "+k.ID)
		}
	}
	if d.Active == "" && len(d.Keys) > 1 {
		names = append(names, "ACTIVE-ID, the key that becomes active")
	}
	return names
}

func (d *Day) onlineInit() []string {
	words := []string{"init"}
	if !strings.Contains(d.Vault, "practice.vault.keyferry.test") {
		words = append(words, "--vault-url", orWord(d.Vault, "VAULT"))
	}
	if d.Tenant != "" && d.Tenant != "practice" {
		words = append(words, "--tenant", d.Tenant)
	}
	if d.Online != "" && d.Online != "online" {
		words = append(words, "--name", d.Online)
	}
	if d.Region != "" && d.Region != "NA" {
		words = append(words, "--region", d.Region)
	}
	for i := range d.Approvers {
		words = append(words, "--approver", fmt.Sprintf("approver-%d.pub", i+1))
	}
	if d.Threshold != len(d.Approvers) {
		words = append(words, "--threshold", fmt.Sprint(d.Threshold))
	}
	return words
}

func (d *Day) offlineInit() []string {
	words := []string{"init", "--out", d.Stick}
	if d.Token != "" || !d.Rehearsal {
		words = append(words, "--hsm-module", orWord(d.Module, "MODULE"), "--hsm-token", orWord(d.Token, "LABEL"))
	}
	if d.Offline != "" && d.Offline != "offline" {
		words = append(words, "--name", d.Offline)
	}
	return words
}

func (d *Day) kind() string {
	if d.Rehearsal {
		return "a rehearsal"
	}
	return "real"
}

func (d *Day) rule() string {
	if d.Threshold == 0 {
		return "none"
	}
	var names []string
	for _, a := range d.Approvers {
		names = append(names, control.Plain(a.Name))
	}
	return fmt.Sprintf("%d of %s", d.Threshold, strings.Join(names, ", "))
}

// on is a file on the stick.
func (d *Day) on(name string) string {
	separator := "/"
	if d.Windows {
		separator = `\`
	}
	return strings.TrimRight(d.Stick, `/\`) + separator + name
}

// copies is the command that copies a file.
func (d *Day) copies() string {
	if d.Windows {
		return "Copy-Item"
	}
	return "cp"
}

func orWord(known, word string) string {
	if known == "" {
		return word
	}
	return known
}

// RunSheet is the sheet of a role, as it is written: for a browser to print, and as
// text of 80 columns.
type RunSheet struct {
	Name       string // offline-operator
	HTML, Text string
}

// RunSheets are the sheets of all roles.
func (d *Day) RunSheets() []RunSheet {
	var sheets []RunSheet
	all := d.steps()
	for _, r := range roles {
		var mine []step
		for _, s := range all {
			own := step{title: s.title}
			for _, p := range s.parts {
				if p.roles&r.role != 0 {
					own.parts = append(own.parts, p)
				}
			}
			if len(own.parts) > 0 {
				mine = append(mine, own)
			}
		}
		sheets = append(sheets, RunSheet{strings.ReplaceAll(r.name, " ", "-"), d.html(r.name, mine), d.text(r.name, mine)})
	}
	return sheets
}

// head is what stands on top of each page.
func (d *Day) head(name string) (title, banner string) {
	kind := "REAL CEREMONY"
	if d.Rehearsal {
		kind = "REHEARSAL"
	}
	return kind + ": run sheet of the " + name,
		fmt.Sprintf("sides %s and %s, vault %s", orWord(d.Offline, "________"), orWord(d.Online, "________"), orWord(d.Vault, "________________"))
}

// pageLines is how many lines a page of text has.
const pageLines = 64

// text sets a sheet as text, in pages that break between steps alone.
func (d *Day) text(name string, steps []step) string {
	title, banner := d.head(name)
	head := title + "\n" + Wrap(banner, 80) + "\nName ____________________  Date ____________  Place ____________________\n"
	var pages []string
	page := head
	for _, s := range steps {
		text := "\n" + d.stepText(s)
		if strings.Count(page, "\n")+strings.Count(text, "\n") > pageLines && page != head {
			pages = append(pages, page)
			page = head
		}
		page += text
	}
	pages = append(pages, page+"\nSigned ______________________________\n")
	return strings.Join(pages, "\f")
}

func (d *Day) stepText(s step) string {
	var b strings.Builder
	fmt.Fprintf(&b, "== %s\n", s.title)
	for _, p := range s.parts {
		switch text := control.Plain(p.text); {
		case p.kind == run:
			b.WriteString(d.broken(p.text) + "\n")
		case p.kind == box:
			b.WriteString("[ ] " + strings.TrimLeft(indented(text, 4), " ") + "\n")
		case p.kind == blank:
			b.WriteString(Wrap(text+":", 80) + "\n    " + strings.Repeat("_", 72) + "\n")
		case p.kind == words && p.print != (fingerprint.Fingerprint{}):
			b.WriteString(Wrap(text, 80) + "\n" + p.print.Rows() + "\n")
		case p.kind == words, p.kind == heard:
			b.WriteString(Wrap(text, 80) + "\n" + strings.Join(blanks(), "\n") + "\n")
		default:
			b.WriteString(Wrap(text, 80) + "\n")
		}
	}
	b.WriteString("                                     Time ______________  Initials _________\n")
	return b.String()
}

// blanks is room for 32 words, in the rows in which they are read.
func blanks() (rows []string) {
	for i := range 8 {
		rows = append(rows, fmt.Sprintf("%2d  %[2]s  %[2]s  %[2]s  %[2]s", 4*i+1, strings.Repeat("_", 16)))
	}
	return rows
}

// broken sets a command in lines of 80 columns that the shell takes as one. A flag
// and its value stay together where they fit, and the words in quotes always.
func (d *Day) broken(command string) string {
	goesOn := ` \`
	if d.Windows {
		goesOn = " `"
	}
	var units []string
	for _, word := range strings.Split(command, " ") {
		n := len(units)
		switch {
		case n > 0 && strings.Count(units[n-1], "'")%2 == 1,
			n > 0 && strings.HasPrefix(units[n-1], "-") && !strings.HasPrefix(word, "-") && !strings.ContainsAny(units[n-1], " '"):
			units[n-1] += " " + word
		default:
			units = append(units, word)
		}
	}
	text, column := "", 0
	for i, unit := range units {
		if flag, value, _ := strings.Cut(unit, " "); len([]rune(unit)) > 74 && strings.HasPrefix(flag, "-") {
			unit = flag + goesOn + "\n    " + value
		}
		size := len([]rune(unit[strings.LastIndex(unit, "\n")+1:]))
		switch {
		case i == 0:
		case column+1+size > 78:
			text += goesOn + "\n    "
			column = 4
		default:
			text += " "
			column++
		}
		text += unit
		column += size
	}
	return text
}

//go:embed runsheet.css
var runStyle string

// quoted is what a command shows or is, within a sentence.
var quoted = regexp.MustCompile("`([^`]+)`")

// html sets a sheet for a browser to print on A4 or Letter. The rows of its one
// table are steps, which no page cuts; its head is repeated on each page.
func (d *Day) html(name string, steps []step) string {
	var b strings.Builder
	e := func(text string) string { return html.EscapeString(control.Plain(text)) }
	prose := func(text string) string { return quoted.ReplaceAllString(e(text), "<code>$1</code>") }
	title, banner := d.head(name)
	fmt.Fprintf(&b, "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>%s</title>\n<style>\n%s</style>\n", e(title), runStyle)
	fmt.Fprintf(&b, "<table class=\"sheet\">\n<thead><tr><td><h1>%s</h1><p>%s</p></td></tr></thead>\n<tbody>\n", e(title), e(banner))
	b.WriteString("<tr><td><p class=\"who\"><span>Name</span><span>Date</span><span>Place</span></p></td></tr>\n")
	for _, s := range steps {
		fmt.Fprintf(&b, "<tr><td><h2>%s</h2>\n", e(s.title))
		for _, p := range s.parts {
			switch {
			case p.kind == run:
				fmt.Fprintf(&b, "<pre class=\"run\">%s</pre>\n", e(p.text))
			case p.kind == box:
				fmt.Fprintf(&b, "<p class=\"box\">%s</p>\n", prose(p.text))
			case p.kind == blank:
				fmt.Fprintf(&b, "<p class=\"blank\">%s<span></span></p>\n", prose(p.text))
			case p.kind == words && p.print != (fingerprint.Fingerprint{}):
				fmt.Fprintf(&b, "<p>%s</p><pre class=\"words\">%s</pre>\n", e(p.text), html.EscapeString(p.print.Rows()))
			case p.kind == words, p.kind == heard:
				fmt.Fprintf(&b, "<p>%s</p><pre class=\"heard\">%s</pre>\n", e(p.text), strings.Join(blanks(), "\n"))
			default:
				fmt.Fprintf(&b, "<p>%s</p>\n", prose(p.text))
			}
		}
		b.WriteString("<p class=\"who\"><span>Time</span><span>Initials</span></p></td></tr>\n")
	}
	b.WriteString("<tr><td><p class=\"who\"><span>Signed</span></p></td></tr>\n</tbody>\n</table>\n</html>\n")
	return b.String()
}
