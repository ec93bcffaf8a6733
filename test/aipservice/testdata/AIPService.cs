// SPDX-License-Identifier: Apache-2.0

// A stand-in for Microsoft's AIPService module: compiled cmdlets, as the real
// one has, which answer as Microsoft documents, and go wrong on demand. What it
// knows and remembers lies in text files beside it, with tabs between fields:
//
//   tpds.txt      SHA-256 of a TPD, its GUID, its password in base64, the public key in base64, the URL of its key (any: whatever is given)
//   keys.txt      the tenant's keys: GUID, status, type, public key, time, friendly name
//   orders.txt    a call (load, connect, keys, import, activate, disconnect), what it does beside or instead, a text
//   calls.txt     what was called, one a line
#pragma warning disable SYSLIB0014 // obsolete in .NET 10, and how .NET Framework is told of TLS 1.2
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Management.Automation;
using System.Net;
using System.Runtime.InteropServices;
using System.Security;
using System.Security.Cryptography;
using System.Text;
using System.Threading;

public static class Standin {
    public static readonly string Dir = Path.GetDirectoryName(typeof(Standin).Assembly.Location);

    public static List<string[]> Read(string name) {
        string path = Path.Combine(Dir, name);
        return File.Exists(path) ? File.ReadAllLines(path).Where(l => l != "").Select(l => l.Split('\t')).ToList() : new List<string[]>();
    }
    public static void Write(string name, IEnumerable<string[]> lines) {
        File.WriteAllLines(Path.Combine(Dir, name), lines.Select(l => string.Join("\t", l)));
    }
    public static void Note(string line) { File.AppendAllText(Path.Combine(Dir, "calls.txt"), line + "\n"); }

    public static IEnumerable<string[]> Orders(string call) { return Read("orders.txt").Where(o => o[0] == call); }

    public static Exception Make(string kind, string text) {
        switch (kind) {
            case "security": return new PSSecurityException(text);
            case "prompt": return new PSInvalidOperationException(text);
            case "denied": return new UnauthorizedAccessException(text);
            case "crypto": return new InvalidOperationException("The request failed.", new CryptographicException(text));
            case "web": return new WebException(text);
            case "missing": return new CommandNotFoundException(text);
        }
        return new Exception(text);
    }
}

// What happens at the import of the module.
public class OnImport : IModuleAssemblyInitializer {
    void IModuleAssemblyInitializer.OnImport() {
        foreach (var o in Standin.Orders("load")) throw Standin.Make(o[1], o[2]);
    }
}

public class RmsKey {
    public string KeyIdentifier { get; set; }
    public string Status { get; set; }
    public string KeyType { get; set; }
    public string PublicKey { get; set; }
    public DateTime CreationTime { get; set; }
    public string FriendlyName { get; set; }
}

public abstract class Call : PSCmdlet {
    static bool signedIn;
    static readonly List<FileStream> held = new List<FileStream>();

    // Begin notes a call and carries its orders out; it does not return where one is an error.
    protected void Begin(string call, string more, string file) {
        Standin.Note((call + " " + more).Trim());
        foreach (var o in Standin.Orders(call)) {
            switch (o[1]) {
                case "verbose": WriteVerbose(o[2]); break;
                case "warning": WriteWarning(o[2]); break;
                case "output": WriteObject(o[2]); break;
                case "console": Console.Write(o[2]); break;
                case "long": Console.WriteLine(new string('x', int.Parse(o[2]))); break;
                case "slow": Standin.Note("slow " + Environment.ProcessId); Thread.Sleep(int.Parse(o[2])); break;
                case "child": Process.Start(new ProcessStartInfo("sleep", o[2]) { UseShellExecute = false }); break;
                case "hold": Directory.CreateDirectory(Path.Combine(Path.GetDirectoryName(file), "held", "open")); held.Add(File.OpenRead(file)); break;
                case "kill": KillWhoDrives(); break;
                case "crash": Environment.FailFast(o[2]); break;
                case "once": if (Standin.Read("calls.txt").Count(c => c[0].StartsWith(call + " ") || c[0] == call) == 1) Fail("", o[2]); break;
                default: Fail(o[1], o[2]); break;
            }
        }
        if (call == "connect") signedIn = true;
        else if (!signedIn) Fail("", "You must call the Connect-AipService cmdlet before calling any other cmdlet.");
        if (call == "disconnect") signedIn = false;
    }
    // Kills the program that runs this PowerShell, which must die with it.
    protected static void KillWhoDrives() {
        var stat = File.ReadAllText("/proc/self/stat");
        Process.GetProcessById(int.Parse(stat.Substring(stat.LastIndexOf(')') + 1).Split(' ')[2])).Kill();
        Thread.Sleep(3000);
        Standin.Note("goes on behind the back");
    }
    protected void Fail(string kind, string text) {
        var e = Standin.Make(kind, text);
        var record = new ErrorRecord(e, e.GetType().FullName, ErrorCategory.NotSpecified, null);
        if (kind == "nonterminating") { WriteError(record); return; }
        ThrowTerminatingError(record);
    }
}

[Cmdlet("Connect", "AipService")]
public class Connect : Call {
    [Parameter] public string EnvironmentName { get; set; }
    protected override void ProcessRecord() {
        var tls = ((int)ServicePointManager.SecurityProtocol & 3072) != 0;
        Begin("connect", EnvironmentName + " module " + GetType().Assembly.GetName().Version + " ui " + CultureInfo.CurrentUICulture.Name + " tls12 " + tls, null);
        WriteObject("A connection to the Azure Rights Management service was opened.");
    }
}

[Cmdlet("Disconnect", "AipService")]
public class Disconnect : Call {
    protected override void ProcessRecord() {
        Begin("disconnect", "", null);
        WriteObject("The connection to the Azure Rights Management service was closed.");
    }
}

[Cmdlet("Get", "AipServiceKeys")]
public class GetKeys : Call {
    protected override void ProcessRecord() {
        Begin("keys", "", null);
        foreach (var k in Standin.Read("keys.txt"))
            WriteObject(new RmsKey { KeyIdentifier = k[0], Status = k[1], KeyType = k[2], PublicKey = k[3], CreationTime = new DateTime(long.Parse(k[4]), DateTimeKind.Utc).ToLocalTime(), FriendlyName = k[5] });
    }
}

[Cmdlet("Import", "AipServiceTpd", SupportsShouldProcess = true)]
public class ImportTpd : Call {
    [Parameter(Mandatory = true)] public string TpdFile { get; set; }
    [Parameter(Mandatory = true)] public SecureString ProtectionPassword { get; set; }
    [Parameter] public string FriendlyName { get; set; }
    [Parameter] public string KeyVaultKeyUrl { get; set; }
    [Parameter] public SwitchParameter Force { get; set; }
    protected override void ProcessRecord() {
        Begin("import", Path.GetFileName(TpdFile), TpdFile);
        string sum;
        using (var sha = SHA256.Create()) sum = BitConverter.ToString(sha.ComputeHash(File.ReadAllBytes(TpdFile))).Replace("-", "").ToLowerInvariant();
        var tpd = Standin.Read("tpds.txt").FirstOrDefault(t => t[0] == sum);
        if (tpd == null) { WriteVerbose("Trusted Publishing Domain data is corrupted."); Fail("web", "The remote server returned an error: (400) Bad Request."); }
        var text = Marshal.SecureStringToGlobalAllocUnicode(ProtectionPassword);
        bool right = Marshal.PtrToStringUni(text) == Encoding.UTF8.GetString(Convert.FromBase64String(tpd[2]));
        Marshal.ZeroFreeGlobalAllocUnicode(text);
        if (!right) { WriteVerbose("Padding is invalid and cannot be removed."); Fail("web", "The remote server returned an error: (400) Bad Request."); }
        if (tpd[4] == "any" ? string.IsNullOrEmpty(KeyVaultKeyUrl) : (KeyVaultKeyUrl ?? "") != tpd[4]) { WriteVerbose("Failure to access Azure KeyVault."); Fail("", "The Rights Management service failed to add the key."); }
        var keys = Standin.Read("keys.txt");
        if (keys.Any(k => k[0].Trim('{', '}').ToLowerInvariant() == tpd[1])) Fail("", "The Trusted Publishing Domain was imported before.");
        bool own = tpd[4] == "";
        keys.Add(new[] { "{" + tpd[1].ToUpperInvariant() + "}", "Archived", own ? "Microsoft-managed" : "Customer-managed (BYOK)", own ? "" : tpd[3],
            new DateTime(2026, 1, 2, 3, 4, 5, DateTimeKind.Utc).AddSeconds(keys.Count).Ticks.ToString(CultureInfo.InvariantCulture), FriendlyName });
        Standin.Write("keys.txt", keys);
        foreach (var o in Standin.Orders("imported")) {
            if (o[1] == "kill") KillWhoDrives();
            else Fail(o[1], o[2]);
        }
    }
}

[Cmdlet("Set", "AipServiceKeyProperties", SupportsShouldProcess = true)]
public class SetKey : Call {
    [Parameter(Mandatory = true)] public string KeyIdentifier { get; set; }
    [Parameter] public bool Active { get; set; }
    [Parameter] public SwitchParameter Force { get; set; }
    protected override void ProcessRecord() {
        Begin("activate", KeyIdentifier, null);
        var keys = Standin.Read("keys.txt");
        if (!keys.Any(k => k[0].Trim('{', '}').ToLowerInvariant() == KeyIdentifier)) Fail("", "No such key.");
        foreach (var k in keys) {
            if (k[0].Trim('{', '}').ToLowerInvariant() == KeyIdentifier) k[1] = "Active";
            else if (k[1] == "Active") k[1] = "Archived";
        }
        Standin.Write("keys.txt", keys);
    }
}
