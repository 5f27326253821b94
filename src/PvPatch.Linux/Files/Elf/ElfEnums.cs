namespace PvPatch.Linux.Files;

/// <summary>Type of an ELF file (<c>e_type</c>, System V ABI, "ELF Header").</summary>
internal enum ElfFileType
{
    /// <summary>Relocatable: an object file or a kernel module. Its sections have no addresses yet.</summary>
    Relocatable = 1,

    /// <summary>Executable with fixed addresses: a <c>vmlinux</c>.</summary>
    Executable = 2,

    /// <summary>Shared object or position-independent executable.</summary>
    SharedObject = 3,
}

/// <summary>The processor an ELF file is for (<c>e_machine</c>).</summary>
internal enum ElfMachine
{
    /// <summary>32-bit x86.</summary>
    I386 = 3,

    /// <summary>64-bit x86.</summary>
    X86X64 = 62,
}

/// <summary>Type of a section (<c>sh_type</c>). Unknown values are kept.</summary>
internal enum ElfSectionType
{
    /// <summary>Nothing: an unused header.</summary>
    Null = 0,

    /// <summary>Code, data or tables of the program.</summary>
    ProgramBits = 1,

    /// <summary>A symbol table.</summary>
    SymbolTable = 2,

    /// <summary>A string table.</summary>
    StringTable = 3,

    /// <summary>Relocations with explicit addends.</summary>
    RelocationsWithAddend = 4,

    /// <summary>Notes.</summary>
    Note = 7,

    /// <summary>Memory without bytes in the file, such as <c>.bss</c>.</summary>
    NoBits = 8,

    /// <summary>Relocations without addends.</summary>
    Relocations = 9,

    /// <summary>The section numbers of symbols whose number does not fit the symbol itself.</summary>
    ExtendedSectionIndices = 18,
}

/// <summary>Attributes of a section (<c>sh_flags</c>). Unknown bits are kept.</summary>
[Flags]
internal enum ElfSectionAttributes : ulong
{
    /// <summary>No flag.</summary>
    None = 0,

    /// <summary>Writable.</summary>
    Write = 1,

    /// <summary>Occupies memory when the program runs.</summary>
    Alloc = 2,

    /// <summary>Holds machine code.</summary>
    Execute = 4,

    /// <summary>One copy per thread; its address says nothing about where it is loaded.</summary>
    ThreadLocal = 0x400,
}

/// <summary>Type of a segment (<c>p_type</c>). Unknown values are kept.</summary>
internal enum ElfSegmentType
{
    /// <summary>An unused header.</summary>
    Null = 0,

    /// <summary>A part of the file that is loaded into memory.</summary>
    Load = 1,

    /// <summary>Notes.</summary>
    Note = 4,
}

/// <summary>The access a segment allows (<c>p_flags</c>).</summary>
[Flags]
internal enum ElfSegmentAccess
{
    /// <summary>No access.</summary>
    None = 0,

    /// <summary>Code may run.</summary>
    Execute = 1,

    /// <summary>Writable.</summary>
    Write = 2,

    /// <summary>Readable.</summary>
    Read = 4,
}

/// <summary>Type of a symbol (low four bits of <c>st_info</c>). Unknown values are kept.</summary>
internal enum ElfSymbolType
{
    /// <summary>Not said.</summary>
    None = 0,

    /// <summary>A variable.</summary>
    Data = 1,

    /// <summary>A function.</summary>
    Function = 2,

    /// <summary>A section.</summary>
    Section = 3,

    /// <summary>A source file.</summary>
    File = 4,
}

/// <summary>Binding of a symbol (high four bits of <c>st_info</c>). Unknown values are kept.</summary>
internal enum ElfSymbolBinding
{
    /// <summary>Seen in its own source file only.</summary>
    Local = 0,

    /// <summary>Seen everywhere.</summary>
    Global = 1,

    /// <summary>Seen everywhere, and gives way to a global symbol of the same name.</summary>
    Weak = 2,
}
