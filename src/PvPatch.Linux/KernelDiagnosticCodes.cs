namespace PvPatch.Linux;

/// <summary>
/// The codes of the diagnostics that the readers of kernel files give: <c>PV6001</c> to <c>PV6199</c>. A code never changes its
/// meaning.
/// </summary>
public static class KernelDiagnosticCodes
{
    /// <summary>The file is neither an ELF file, nor a bzImage, nor a compressed ELF file.</summary>
    public const string NotAKernel = "PV6001";

    /// <summary>The file cannot be opened or read, or changed its length while it was read.</summary>
    public const string FileUnreadable = "PV6002";

    /// <summary>The file is larger than the reader was told to accept.</summary>
    public const string FileTooLarge = "PV6003";

    /// <summary>The file ends inside the ELF header.</summary>
    public const string ElfTruncated = "PV6010";

    /// <summary>The ELF file is of a class, byte order, machine, type or version that is not read here.</summary>
    public const string ElfNotSupported = "PV6011";

    /// <summary>The section header table or the program header table lies outside the file.</summary>
    public const string ElfTableOutsideFile = "PV6012";

    /// <summary>A table's entry size, or a section or segment header field, has a value that the format does not allow.</summary>
    public const string ElfBadHeaderField = "PV6013";

    /// <summary>A section's content lies outside the file.</summary>
    public const string ElfSectionOutsideFile = "PV6014";

    /// <summary>A segment's content lies outside the file.</summary>
    public const string ElfSegmentOutsideFile = "PV6015";

    /// <summary>A string table is missing, is not terminated, or a name lies outside of it or is too long.</summary>
    public const string ElfBadStringTable = "PV6016";

    /// <summary>The addresses of a section or segment go beyond the end of the address space.</summary>
    public const string ElfAddressOverflow = "PV6017";

    /// <summary>
    /// A loaded section shares bytes of the file or addresses with another section, a header or what a segment puts there, or a table lies
    /// in code.
    /// </summary>
    public const string ElfOverlap = "PV6018";

    /// <summary>The file has no section headers or no section names, so tables in it cannot be found by name (a warning).</summary>
    public const string ElfNoSectionHeaders = "PV6019";

    /// <summary>The file has no section of the name asked for.</summary>
    public const string ElfSectionMissing = "PV6020";

    /// <summary>The symbol table is malformed.</summary>
    public const string ElfBadSymbolTable = "PV6021";

    /// <summary>The file has no symbol table.</summary>
    public const string ElfNoSymbols = "PV6022";

    /// <summary>The file ends inside the boot header of a bzImage.</summary>
    public const string BzImageTruncated = "PV6030";

    /// <summary>The boot header is not one of a bzImage, or its protocol is too old to say where the payload is.</summary>
    public const string BzImageBadHeader = "PV6031";

    /// <summary>The compressed payload lies outside the bzImage.</summary>
    public const string BzImagePayloadOutsideFile = "PV6032";

    /// <summary>The payload does not start with the magic number of a known compression.</summary>
    public const string PayloadUnknownCompression = "PV6033";

    /// <summary>The compressed data is damaged: its decoder refused it.</summary>
    public const string PayloadCorrupt = "PV6034";

    /// <summary>The uncompressed data is, or says it is, larger than the limits allow.</summary>
    public const string PayloadTooLarge = "PV6035";

    /// <summary>The compressed data unpacks to more or fewer bytes than the file says.</summary>
    public const string PayloadSizeMismatch = "PV6036";

    /// <summary>The program that unpacks this compression is not installed.</summary>
    public const string DecompressorMissing = "PV6037";

    /// <summary>The program that unpacks this compression took longer than the time limit.</summary>
    public const string DecompressorTimeout = "PV6038";

    /// <summary>The program that unpacks this compression could not be started or did not do its work.</summary>
    public const string DecompressorFailed = "PV6039";

    /// <summary>The compressed data was unpacked, but it is not an ELF file.</summary>
    public const string PayloadNotElf = "PV6040";

    /// <summary>
    /// Parts of a bzImage (kernel, compressed kernel, EFI headers and sections, signature) share bytes or addresses, or lie outside the
    /// file or the part that must hold them.
    /// </summary>
    public const string BzImageOverlap = "PV6041";

    /// <summary>The BTF header is missing, truncated or of a version that is not read here.</summary>
    public const string BtfBadHeader = "PV6050";

    /// <summary>
    /// The type or string part of the BTF data lies outside of it, the two share bytes, or the strings are not terminated.
    /// </summary>
    public const string BtfPartOutsideData = "PV6051";

    /// <summary>A BTF type record is cut short, or of an unknown kind.</summary>
    public const string BtfBadType = "PV6052";

    /// <summary>A BTF record refers to a type or name that does not exist.</summary>
    public const string BtfBadReference = "PV6053";

    /// <summary>BTF types contain themselves, or are nested too deeply or too widely to be a table of operations.</summary>
    public const string BtfTooDeep = "PV6054";

    /// <summary>The BTF data does not describe the struct asked for.</summary>
    public const string BtfStructMissing = "PV6055";

    /// <summary>A member of the struct is a bit field, has no size, or lies outside the struct.</summary>
    public const string BtfBadMember = "PV6056";

    /// <summary>The BTF data describes two different structs of the name asked for.</summary>
    public const string BtfStructAmbiguous = "PV6057";

    /// <summary>The size of the alternatives table is not a multiple of its record size.</summary>
    public const string AltSizeNotMultiple = "PV6070";

    /// <summary>A record of the alternatives table holds an address or length that leaves the address space.</summary>
    public const string AltAddressOverflow = "PV6071";

    /// <summary>No known record format fits the alternatives table.</summary>
    public const string AltFormatUnknown = "PV6072";

    /// <summary>More than one record format fits the alternatives table, and they disagree.</summary>
    public const string AltFormatAmbiguous = "PV6073";

    /// <summary>The kernel image holds no symbols of its own (kallsyms) in a form that is known.</summary>
    public const string KallsymsNotFound = "PV6080";

    /// <summary>The image has the tables of kallsyms, but the names in them cannot be decoded.</summary>
    public const string KallsymsBadNames = "PV6081";

    /// <summary>The image has the names of kallsyms, but no known form of their addresses fits.</summary>
    public const string KallsymsBadAddresses = "PV6082";

    /// <summary>The System.map is a stand-in that only says where the real one is.</summary>
    public const string SystemMapStub = "PV6083";

    /// <summary>A line of a System.map or kallsyms listing is not an address, a type and a name; or there is no such line at all.</summary>
    public const string SymbolListingBad = "PV6084";

    /// <summary>A kallsyms listing was read without the right to see addresses: all are zero.</summary>
    public const string SymbolAddressesHidden = "PV6085";

    /// <summary>There is no symbol of the name asked for.</summary>
    public const string SymbolUnknown = "PV6086";

    /// <summary>A place is not of the form <c>symbol</c> or <c>symbol+0x12</c>.</summary>
    public const string SymbolPlaceBad = "PV6087";

    /// <summary>Symbols of a kernel were asked of a file whose addresses are not set yet, such as a module.</summary>
    public const string SymbolsOfRelocatable = "PV6088";

    /// <summary>The kernel has no paravirt sites: neither <c>.parainstructions</c> nor direct calls among its alternatives.</summary>
    public const string NoSiteTable = "PV6101";

    /// <summary>The kernel is of an era this version of PvPatch has no data for.</summary>
    public const string EraUnknown = "PV6102";

    /// <summary>The order of the kernel's ops table can't be found out.</summary>
    public const string LayoutUnknown = "PV6103";

    /// <summary>The kernel's ops table can't be found, or does not hold what an ops table holds.</summary>
    public const string OpsTableNotFound = "PV6104";

    /// <summary>An alternative at a paravirt site has a condition or form that is not known.</summary>
    public const string AlternativeUnknown = "PV6105";

    /// <summary>The image has no such backend.</summary>
    public const string BackendNotInImage = "PV6106";

    /// <summary>The output file can't be written.</summary>
    public const string OutputUnwritable = "PV6107";

    /// <summary>A slot file can't be read, or names a function the kernel has not.</summary>
    public const string SlotOverridesInvalid = "PV6108";

    /// <summary>The memory file can't be opened or read.</summary>
    public const string MemoryUnreadable = "PV6120";

    /// <summary>The memory file is no ELF core, and no base address says where raw memory lies.</summary>
    public const string MemoryNotACore = "PV6121";

    /// <summary>The header of an ELF core is damaged, or the core is of another machine.</summary>
    public const string CoreBadHeader = "PV6122";

    /// <summary>The program headers of an ELF core lie outside the file, or are more than can be.</summary>
    public const string CoreBadTable = "PV6123";

    /// <summary>An ELF core or raw file holds no memory at all.</summary>
    public const string MemoryEmpty = "PV6124";

    /// <summary>An ELF core ends before the memory it announces (a warning); what is missing counts as unreadable.</summary>
    public const string CoreTruncated = "PV6125";

    /// <summary>Segments of an ELF core share addresses or leave the address space (a warning).</summary>
    public const string CoreBadSegments = "PV6126";

    /// <summary>The notes of an ELF core are damaged and were passed over from there on (a warning).</summary>
    public const string CoreBadNotes = "PV6127";

    /// <summary>The memory does not hold this kernel.</summary>
    public const string KernelNotInMemory = "PV6128";

    /// <summary>The kernel image has nothing to be recognised by in memory.</summary>
    public const string KernelNotRecognizable = "PV6129";

    /// <summary>The base address given for raw memory does not fit its content; the kernel was found all the same (a warning).</summary>
    public const string MemoryBaseWrong = "PV6130";

    /// <summary>The core's own notes give an address at which the kernel is not (a warning); they were not followed.</summary>
    public const string CoreNotesWrong = "PV6131";

    /// <summary>A site holds bytes that are neither original nor any backend's.</summary>
    public const string SiteTampered = "PV6132";

    /// <summary>Sites are not in the memory file (a warning).</summary>
    public const string SitesUnreadable = "PV6133";

    /// <summary>Sites lie in memory that the kernel frees at the end of its start (for information).</summary>
    public const string SitesFreed = "PV6134";

    /// <summary>Every site holds its original bytes: the memory was dumped before the kernel patched itself (a warning).</summary>
    public const string MemoryNotPatched = "PV6135";

    /// <summary>Every site holds bytes that are known, but not of one backend (an error).</summary>
    public const string SitesMixed = "PV6136";

    /// <summary>More than one candidate accounts for the sites equally well (for information).</summary>
    public const string BackendsTied = "PV6137";

    /// <summary>No site could be compared.</summary>
    public const string NothingCompared = "PV6138";

    /// <summary>
    /// The virtual displacement of the kernel is not known; originals with absolute addresses were compared as if it were 0 (a warning).
    /// </summary>
    public const string SlideUnknown = "PV6139";

    /// <summary>Machines a kernel may have booted on were left out, as there are more than are compared at once (a warning).</summary>
    public const string CandidatesLeftOut = "PV6148";

    /// <summary>The file is not a kernel module: a relocatable ELF file.</summary>
    public const string NotAModule = "PV6140";

    /// <summary>The module is for another machine than the kernel.</summary>
    public const string ModuleWrongMachine = "PV6141";

    /// <summary>The relocations of a module or object file are damaged: their size, section, symbol or place is none that can be.</summary>
    public const string ModuleBadRelocations = "PV6142";

    /// <summary>A module's site, replacement or table refers to something that is not known or out of reach.</summary>
    public const string ModuleUnresolved = "PV6143";

    /// <summary>The module has no section of a name for which an address was given.</summary>
    public const string ModuleSectionUnknown = "PV6144";

    /// <summary>
    /// The sections of a module cannot lie where they were told to: no address, an overlap with each other or with the kernel, or beyond
    /// the address space.
    /// </summary>
    public const string ModuleBadPlacement = "PV6145";

    /// <summary>The module keeps its sites in another way than the kernel: it was built for another one.</summary>
    public const string ModuleOtherEra = "PV6146";

    /// <summary>The module says it was built for another release than the kernel says it is (a warning).</summary>
    public const string ModuleOtherRelease = "PV6147";

    /// <summary>A line of a layout's text is neither a slot nor what else may stand there.</summary>
    public const string LayoutBadLine = "PV6160";

    /// <summary>A layout's text is too long, or names more slots than a site table can number.</summary>
    public const string LayoutTooLarge = "PV6161";

    /// <summary>A layout's text does not say the bitness, or names no slot.</summary>
    public const string LayoutIncomplete = "PV6162";

    /// <summary>There is no layout of the name given, nor a file that can be read.</summary>
    public const string LayoutUnreadable = "PV6163";

    /// <summary>The layout given is of a kernel of another bitness.</summary>
    public const string LayoutWrongBitness = "PV6164";

    /// <summary>The era given is one whose sites are kept in another way than the image's.</summary>
    public const string EraWrongSource = "PV6165";

    /// <summary>The kernel is of a kind that cannot be audited: one of 32 bits.</summary>
    public const string AuditNotSupported = "PV6170";

    /// <summary>The sections of an object file cannot lie where they were told to.</summary>
    public const string ObjectBadPlacement = "PV6180";

    /// <summary>A site, replacement or record of an object file refers to a symbol whose address is not known, or out of reach.</summary>
    public const string ObjectUnresolved = "PV6181";

    /// <summary>A name given for tables or functions is that of several symbols of the file, none of them global.</summary>
    public const string SiteNameAmbiguous = "PV6182";

    /// <summary>The file keeps no relocations of its code.</summary>
    public const string RelocationsMissing = "PV6183";

    /// <summary>References to a listed table or function are no calls that can be patched (for information).</summary>
    public const string ReferenceNotACall = "PV6184";

    /// <summary>The object file has several tables of records.</summary>
    public const string ObjectSeveralTables = "PV6185";

    /// <summary>A record of a table that rewrites text names a place outside the text, or data outside the image.</summary>
    public const string TextRecordOutside = "PV6200";

    /// <summary>A site of text holds something else than what its mechanism patches.</summary>
    public const string TextSiteUnexpected = "PV6201";

    /// <summary>The target of a call or jump is out of reach of its site.</summary>
    public const string TextOutOfReach = "PV6202";

    /// <summary>What decides the text cannot be read from the memory.</summary>
    public const string TextStateUnreadable = "PV6203";

    /// <summary>The KASLR relocations behind the kernel are damaged.</summary>
    public const string RelocationsBad = "PV6204";

    /// <summary>The kernel has sites of a mechanism that rewrites text, but not the symbol that tells what they are.</summary>
    public const string TextSymbolMissing = "PV6205";

    /// <summary>What a kernel rewrites besides its paravirt sites is not known.</summary>
    public const string TextRulesUnknown = "PV6206";
}
