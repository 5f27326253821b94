namespace PvPatch;

/// <summary>The stable codes of the engine's diagnostics. <c>docs/diagnostics.md</c> explains each.</summary>
public static class DiagnosticCodes
{
    /// <summary>A lazy mode is entered while another one is active, or the same where nesting is not counted.</summary>
    public const string LazyModeActive = "PV0101";

    /// <summary>A lazy mode is left that the CPU is not in.</summary>
    public const string LazyModeUnpaired = "PV0102";

    /// <summary>A context switch, or a change of a mode that is not preempted, while the CPU may be preempted.</summary>
    public const string LazyPreemptible = "PV0103";

    /// <summary>Lazy modes and interrupts are not nested in each other.</summary>
    public const string LazyInterrupt = "PV0104";

    /// <summary>A queue of hypercalls is used by its own sink, or by a function that it runs at a flush.</summary>
    public const string LazyReentered = "PV0105";

    /// <summary>
    /// A queue of hypercalls can't hold what it is given: arguments larger than all its space, or a function where it has room for none.
    /// </summary>
    public const string LazyArguments = "PV0106";

    /// <summary>The sink of queued hypercalls, or a function that waited for them, threw an exception.</summary>
    public const string LazySinkFailed = "PV0107";

    /// <summary>The sink of queued hypercalls completed none of them, more than there are, or part of one.</summary>
    public const string LazySinkAnswer = "PV0108";

    /// <summary>Something else is done between adding hypercalls to a queue and issuing them.</summary>
    public const string LazyUnissued = "PV0109";

    /// <summary>An operation observes CPU state in a lazy mode whose policy refuses that.</summary>
    public const string LazyObserved = "PV0110";

    /// <summary>A task ends, or is switched away from, with a parked lazy mode, or is used after its end.</summary>
    public const string LazyTask = "PV0111";

    /// <summary>A site has length 0.</summary>
    public const string SiteZeroLength = "PV1001";

    /// <summary>A site is longer than a site may be.</summary>
    public const string SiteTooLong = "PV1002";

    /// <summary>Two sites have the same address.</summary>
    public const string SiteDuplicate = "PV1003";

    /// <summary>Two sites share bytes.</summary>
    public const string SiteOverlap = "PV1004";

    /// <summary>A site lies outside every segment of the image.</summary>
    public const string SiteOutsideImage = "PV1005";

    /// <summary>A site names a slot the layout does not have.</summary>
    public const string SiteUnknownSlot = "PV1006";

    /// <summary>A site names a word of the table that holds data, not a function.</summary>
    public const string SiteDataSlot = "PV1007";

    /// <summary>A site runs over the end of the address space.</summary>
    public const string SiteWraps = "PV1008";

    /// <summary>The size of a site table does not fit its records.</summary>
    public const string TableStride = "PV1010";

    /// <summary>A record of a site section is of a version or mechanism that is not known.</summary>
    public const string RecordUnknown = "PV1011";

    /// <summary>A field of a record has a value that its mechanism does not allow.</summary>
    public const string RecordField = "PV1012";

    /// <summary>
    /// The name of a record is missing, outside the section of names, without an end, no text, or given twice in a region.
    /// </summary>
    public const string RecordName = "PV1013";

    /// <summary>The target of a record is missing, outside the code, in the record's own region or out of reach.</summary>
    public const string RecordTarget = "PV1014";

    /// <summary>
    /// Two records give one slot different words or functions, or those of a multiway branch's site are not one for each way.
    /// </summary>
    public const string RecordSlot = "PV1015";

    /// <summary>A layout, backend or registry was asked for a slot it does not have.</summary>
    public const string UnknownSlot = "PV2001";

    /// <summary>A registry was asked for a backend it does not have.</summary>
    public const string UnknownBackend = "PV2002";

    /// <summary>A table, slot or backend of that name exists already.</summary>
    public const string DuplicateName = "PV2003";

    /// <summary>A backend was made for another layout.</summary>
    public const string WrongLayout = "PV2004";

    /// <summary>An inline body can't be assembled.</summary>
    public const string BodyInvalid = "PV2005";

    /// <summary>An operation does not keep to its slot's convention, or its target can't be called by it.</summary>
    public const string ConventionBroken = "PV2006";

    /// <summary>The bytes at a site are neither an indirect call nor anything the plan's predecessor put there.</summary>
    public const string UnknownBytes = "PV3001";

    /// <summary>The call at a site goes through another slot than the table says.</summary>
    public const string WrongSlotOperand = "PV3002";

    /// <summary>A slot that sites use has no operation: its sites trap.</summary>
    public const string MissingOperation = "PV3003";

    /// <summary>The kernel of the chosen rules would stop at this site (BUG).</summary>
    public const string KernelWouldStop = "PV3004";

    /// <summary>The image's bitness is not the plan's.</summary>
    public const string WrongBitness = "PV3005";

    /// <summary>The room given for thunks is outside the image or used by a site.</summary>
    public const string ThunkArea = "PV3006";

    /// <summary>The previous plan does not belong to these sites.</summary>
    public const string WrongPreviousPlan = "PV3007";

    /// <summary>The rules need an address (of the kernel's BUG function, say) that was not given.</summary>
    public const string RulesNeedAddress = "PV3008";

    /// <summary>The nops asked for change registers in code of the image's bitness.</summary>
    public const string WrongNops = "PV3009";

    /// <summary>A change names a key, a static call or a variant that no record has.</summary>
    public const string RecordNameUnknown = "PV3010";

    /// <summary>A recorded site can't hold what is asked for.</summary>
    public const string RecordUnfit = "PV3011";

    /// <summary>A planned site lies outside the image the plan is applied to.</summary>
    public const string PlanOutsideImage = "PV4001";

    /// <summary>The bytes at a planned site are neither the old nor the new ones.</summary>
    public const string UnexpectedBytes = "PV4002";

    /// <summary>A stored plan is not one, or is of a later version.</summary>
    public const string PlanFormat = "PV5001";

    /// <summary>A stored plan contradicts itself.</summary>
    public const string PlanInconsistent = "PV5002";

    /// <summary>A stored plan writes where the image's site table has no such site.</summary>
    public const string PlanSiteUnknown = "PV5003";

    /// <summary>The old bytes of a stored plan are not what may stand at a site before it is patched.</summary>
    public const string PlanOldBytes = "PV5004";

    /// <summary>An arena has no room left.</summary>
    public const string ArenaFull = "PV8001";

    /// <summary>There is no room for an arena in reach of the address asked for.</summary>
    public const string ArenaOutOfReach = "PV8002";

    /// <summary>The system refuses memory for an arena.</summary>
    public const string ArenaRefused = "PV8003";

    /// <summary>An arena, block or patcher is used after it was given up.</summary>
    public const string ArenaDisposed = "PV8004";

    /// <summary>An arena or executor is given up while a thread is inside generated code.</summary>
    public const string ArenaInUse = "PV8005";

    /// <summary>Live patching needs an x86-64 process on Linux or Windows.</summary>
    public const string LiveUnsupported = "PV8006";

    /// <summary>
    /// An executor is used by a thread that is not the one inside with it, or that is inside with another one and would wait for itself.
    /// </summary>
    public const string ExecutorMisuse = "PV8007";

    /// <summary>Executors can't have their words behind the gs base.</summary>
    public const string NoGsBase = "PV8008";

    /// <summary>A live site lies outside its block.</summary>
    public const string LiveSiteOutside = "PV8010";

    /// <summary>A live site does not hold what a site must hold before it is patched.</summary>
    public const string LiveSiteForm = "PV8011";

    /// <summary>A site can only be changed while no thread is in generated code.</summary>
    public const string NeedsQuiescence = "PV8012";

    /// <summary>A block is used after it was retired.</summary>
    public const string BlockRetired = "PV8013";

    /// <summary>Sites and assembler do not belong together, or the code can't be assembled.</summary>
    public const string EmitterMisuse = "PV8014";

    /// <summary>Another batch is under way, or another patcher has these slots.</summary>
    public const string PatcherBusy = "PV8020";

    /// <summary>
    /// A thread that is inside generated code asks for a patch; or emits, binds or retires while a batch waits, without a time limit, for
    /// it to leave.
    /// </summary>
    public const string InsideGeneratedCode = "PV8021";

    /// <summary>There is no barrier, so nothing can be changed under running threads.</summary>
    public const string NoBarrier = "PV8022";

    /// <summary>A live site holds bytes that nobody here put there.</summary>
    public const string UnexpectedLiveBytes = "PV8023";

    /// <summary>A site changed while it was written; the batch was taken back.</summary>
    public const string SwapFailed = "PV8024";

    /// <summary>Threads stayed inside generated code longer than the call may wait.</summary>
    public const string NotQuiescent = "PV8025";

    /// <summary>Threads may still be inside a body of several instructions; the site keeps it.</summary>
    public const string GraceTimeout = "PV8026";

    /// <summary>A batch was interrupted by an exception.</summary>
    public const string BatchFaulted = "PV8027";

    /// <summary>Only a barrier that nobody promises to serialize other processors is to be had.</summary>
    public const string WeakBarrier = "PV8028";

    /// <summary>The target of an operation is not code.</summary>
    public const string TargetNotExecutable = "PV8029";

    /// <summary>An operation can't be put into its slot: it destroys what a site must keep, or has no function.</summary>
    public const string SlotFunction = "PV8030";

    /// <summary>A site can't lead to the target it shall be linked to.</summary>
    public const string SiteLink = "PV8031";

    /// <summary>A block is retired while sites are linked to it, or a static call or slot leads to it.</summary>
    public const string BlockLinked = "PV8032";

    /// <summary>A plan of running code no longer fits it: something was emitted, retired or switched since.</summary>
    public const string PlanStale = "PV8033";

    /// <summary>A site can do the operation through its slot only, and the slot does something else.</summary>
    public const string SiteNeedsSlot = "PV8034";

    /// <summary>A site follows a key, a branch or the like, so it can't be given to a backend, linked or reverted.</summary>
    public const string SiteOfSetting = "PV8035";

    /// <summary>A key, a branch or the like belongs to another arena.</summary>
    public const string SettingArena = "PV8036";

    /// <summary>A label is out of reach of a branch.</summary>
    public const string BranchReach = "PV8037";

    /// <summary>A key is disabled more often than it was enabled.</summary>
    public const string KeyCount = "PV8038";

    /// <summary>A site can't follow what it depends on: a field is too small for the value, or a backend has no variant there.</summary>
    public const string SettingValue = "PV8039";

    /// <summary>A site can't pass its argument or operands: a register or the room for it is missing, or no thunk can call there.</summary>
    public const string SiteArgument = "PV8045";

    /// <summary>A link that was requested from inside generated code was not made.</summary>
    public const string RequestNotMade = "PV8050";

    /// <summary>
    /// A checked spinlock is released by another than its holder or while it is free, or taken by its holder once more.
    /// </summary>
    public const string LockMisuse = "PV8070";

    /// <summary>A word can't be that of a spinlock which nobody holds: it is not aligned, not zero, or known already.</summary>
    public const string LockWord = "PV8071";

    /// <summary>Waiters of spinlocks can't be let sleep, or don't come back from the host.</summary>
    public const string LockWaiters = "PV8072";

    /// <summary>Spinlocks can't become another kind: they are held, or threads may be using them.</summary>
    public const string LocksInUse = "PV8073";

    /// <summary>Code could not be followed, so nothing is known of what it destroys or reads.</summary>
    public const string CodeNotFollowed = "PV9001";

    /// <summary>An analysis of code was given up because it takes more work than is allowed.</summary>
    public const string AnalysisBudget = "PV9002";
}
