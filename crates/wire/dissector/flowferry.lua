-- Wireshark dissector of Flowferry's control frames (docs/wire.md).
--
--   tshark -X lua_script:flowferry.lua -r capture.pcap -Y flowferry
--
-- Written from the document and not from the Rust code, so that each checks the other. It shows
-- everything and decides nothing: the tag is displayed, never verified, since the key has no
-- business in a capture tool. Malformed frames get an expert note of severity error and are shown
-- as far as they can be read.

local proto = Proto("flowferry", "Flowferry control")

local COMMANDS = {
    [0x01] = "PREPARE", [0x02] = "START_HO", [0x03] = "FREEZE", [0x04] = "MARKER",
    [0x05] = "RELEASE", [0x06] = "COMMIT", [0x07] = "ABORT", [0x08] = "QUERY",
    [0x20] = "ACK", [0x21] = "NACK", [0x22] = "SEEN", [0x23] = "FENCED",
    [0x24] = "IMPORTED", [0x25] = "RELEASED", [0x26] = "ABORTED", [0x27] = "STATUS",
    [0x40] = "DRAIN", [0x41] = "FLUSH", [0x42] = "TEST",
}
local KINDS = {
    [0x0001] = "Match", [0x0002] = "Downstream match", [0x0003] = "Overriding matches",
    [0x0004] = "Priority", [0x0005] = "Source", [0x0006] = "Destination", [0x0007] = "Peer",
    [0x0008] = "Flows", [0x0009] = "Side", [0x000a] = "Counts", [0x000b] = "Error",
    [0x000c] = "Deadline", [0x000d] = "Settling time", [0x000e] = "Strategy", [0x000f] = "Epoch",
    [0x0010] = "Part", [0x0011] = "In reply to", [0x0012] = "Round", [0x0013] = "CPU",
    [0x8014] = "Name", [0x8015] = "Step",
}
local SIDES = { [1] = "upstream", [2] = "downstream" }
local FAMILIES = { [0] = "any", [2] = "no IP", [4] = "IPv4", [6] = "IPv6" }
local REASONS = {
    [0] = "other", [1] = "unsupported", [2] = "unknown handover", [3] = "wrong state",
    [4] = "buffer pressure", [5] = "capture failed", [6] = "export failed", [7] = "import failed",
    [8] = "peer unreachable", [9] = "deadline passed", [10] = "wrong epoch", [11] = "requested",
}
local COUNTERS = {
    "flows", "captured_packets", "captured_bytes_peak", "stray_packets", "released_packets",
    "lost_packets", "discarded_packets", "outstanding_packets", "buffer_bytes",
    "buffer_limit_bytes", "rejected_frames", "markers", "fence_us",
}

local HEADER_LEN, TAG_LEN, TLV_HEADER_LEN = 40, 16, 4
local KNOWN_FLAGS = 0x003f

local f = {
    version = ProtoField.uint8("flowferry.version", "Version"),
    command = ProtoField.uint8("flowferry.command", "Command", base.HEX, COMMANDS),
    flags = ProtoField.uint16("flowferry.flags", "Flags", base.HEX),
    retry = ProtoField.bool("flowferry.flags.retry", "Retry", 16, nil, 0x0001),
    both_sides = ProtoField.bool("flowferry.flags.both_sides", "Both sides", 16, nil, 0x0002),
    drain_unproven = ProtoField.bool(
        "flowferry.flags.drain_unproven", "Drain unproven", 16, nil, 0x0004),
    unfenced = ProtoField.bool("flowferry.flags.unfenced", "Unfenced", 16, nil, 0x0008),
    state_lost = ProtoField.bool("flowferry.flags.state_lost", "State lost", 16, nil, 0x0010),
    turned = ProtoField.bool("flowferry.flags.turned", "Turned", 16, nil, 0x0020),
    key_id = ProtoField.uint16("flowferry.key_id", "Key id"),
    tlv_len = ProtoField.uint16("flowferry.tlv_len", "TLV length"),
    handover = ProtoField.uint64("flowferry.handover", "Handover", base.HEX),
    to = ProtoField.uint32("flowferry.to", "To instance"),
    from = ProtoField.uint32("flowferry.from", "From instance"),
    boot = ProtoField.uint64("flowferry.boot", "Boot id"),
    sequence = ProtoField.uint64("flowferry.sequence", "Sequence"),
    tag = ProtoField.bytes("flowferry.tag", "Tag (not verified)"),
    padding = ProtoField.bytes("flowferry.padding", "Padding"),

    tlv = ProtoField.none("flowferry.tlv", "TLV"),
    tlv_type = ProtoField.uint16("flowferry.tlv.type", "Type", base.HEX, KINDS),
    tlv_length = ProtoField.uint16("flowferry.tlv.length", "Length"),
    unknown = ProtoField.bytes("flowferry.tlv.unknown", "Unknown value"),

    match = ProtoField.none("flowferry.match", "Match"),
    match_family = ProtoField.uint8("flowferry.match.family", "Family", base.DEC, FAMILIES),
    match_fields = ProtoField.uint8("flowferry.match.fields", "Fields present", base.HEX),
    match_protocol = ProtoField.uint8("flowferry.match.protocol", "IP protocol"),
    source_port = ProtoField.uint16("flowferry.match.source_port", "Source port"),
    source_port_mask = ProtoField.uint16(
        "flowferry.match.source_port_mask", "Source port mask", base.HEX),
    destination_port = ProtoField.uint16("flowferry.match.destination_port", "Destination port"),
    destination_port_mask = ProtoField.uint16(
        "flowferry.match.destination_port_mask", "Destination port mask", base.HEX),
    outer_vlan = ProtoField.uint16("flowferry.match.outer_vlan", "Outer VLAN", base.HEX),
    outer_vlan_mask = ProtoField.uint16(
        "flowferry.match.outer_vlan_mask", "Outer VLAN mask", base.HEX),
    inner_vlan = ProtoField.uint16("flowferry.match.inner_vlan", "Inner VLAN", base.HEX),
    inner_vlan_mask = ProtoField.uint16(
        "flowferry.match.inner_vlan_mask", "Inner VLAN mask", base.HEX),

    flow = ProtoField.none("flowferry.flow", "Flow"),
    flow_family = ProtoField.uint8(
        "flowferry.flow.family", "Family", base.DEC, FAMILIES, 0xf0),
    flow_vlans = ProtoField.uint8("flowferry.flow.vlans", "VLAN ids", base.DEC, nil, 0x0f),
    flow_protocol = ProtoField.uint8("flowferry.flow.protocol", "IP protocol"),
    flow_vlan = ProtoField.uint16("flowferry.flow.vlan", "VLAN id"),
    flow_ethertype = ProtoField.uint16("flowferry.flow.ethertype", "EtherType", base.HEX),
    low_mac = ProtoField.ether("flowferry.flow.low_mac", "Low address"),
    high_mac = ProtoField.ether("flowferry.flow.high_mac", "High address"),
    low_port = ProtoField.uint16("flowferry.flow.low_port", "Low port"),
    high_port = ProtoField.uint16("flowferry.flow.high_port", "High port"),

    priority = ProtoField.uint16("flowferry.priority", "Priority"),
    source = ProtoField.uint32("flowferry.source", "Source instance"),
    destination = ProtoField.uint32("flowferry.destination", "Destination instance"),
    peer_instance = ProtoField.uint32("flowferry.peer.instance", "Peer instance"),
    peer_ip4 = ProtoField.ipv4("flowferry.peer.ip4", "Peer address"),
    peer_ip6 = ProtoField.ipv6("flowferry.peer.ip6", "Peer address"),
    peer_port = ProtoField.uint16("flowferry.peer.port", "Peer port"),
    side = ProtoField.uint8("flowferry.side", "Side", base.DEC, SIDES),
    reason = ProtoField.uint16("flowferry.error.reason", "Reason", base.DEC, REASONS),
    text = ProtoField.string("flowferry.error.text", "Text", base.UNICODE),
    deadline = ProtoField.uint32("flowferry.deadline_ms", "Deadline (ms)"),
    settling = ProtoField.uint32("flowferry.settling_ms", "Settling time (ms)"),
    strategy = ProtoField.string("flowferry.strategy", "Strategy", base.UNICODE),
    epoch = ProtoField.uint64("flowferry.epoch", "Epoch"),
    list = ProtoField.uint32("flowferry.part.list", "List"),
    part = ProtoField.uint16("flowferry.part.part", "Part"),
    parts = ProtoField.uint16("flowferry.part.parts", "Parts"),
    reply_command = ProtoField.uint8(
        "flowferry.in_reply_to.command", "Answers command", base.HEX, COMMANDS),
    reply_sequence = ProtoField.uint64("flowferry.in_reply_to.sequence", "Answers sequence"),
    round = ProtoField.uint32("flowferry.round", "Round"),
    cpu = ProtoField.uint16("flowferry.cpu", "CPU"),
    name = ProtoField.string("flowferry.name", "Name", base.UNICODE),
    step = ProtoField.string("flowferry.step", "Step", base.UNICODE),
    count_unknown = ProtoField.uint64("flowferry.counts.unknown", "Unknown counter"),
}
for _, which in ipairs({ "source", "destination" }) do
    local title = which == "source" and "Source" or "Destination"
    for family, kind in pairs({ ip4 = ProtoField.ipv4, ip6 = ProtoField.ipv6 }) do
        local abbr = "flowferry.match." .. which .. "_" .. family
        f["match_" .. which .. "_" .. family] = kind(abbr, title)
        f["match_" .. which .. "_" .. family .. "_mask"] = kind(abbr .. "_mask", title .. " mask")
    end
end
for _, family in ipairs({ "ip4", "ip6" }) do
    local kind = family == "ip4" and ProtoField.ipv4 or ProtoField.ipv6
    f["low_" .. family] = kind("flowferry.flow.low_" .. family, "Low address")
    f["high_" .. family] = kind("flowferry.flow.high_" .. family, "High address")
end
for number, name in ipairs(COUNTERS) do
    f["count_" .. number] = ProtoField.uint64("flowferry.counts." .. name, name)
end

local fields = {}
for _, field in pairs(f) do
    fields[#fields + 1] = field
end
proto.fields = fields

local malformed = ProtoExpert.new(
    "flowferry.malformed", "Malformed control frame", expert.group.MALFORMED, expert.severity.ERROR)
local undecoded = ProtoExpert.new(
    "flowferry.undecoded", "Not known to this dissector", expert.group.UNDECODED,
    expert.severity.WARN)
proto.experts = { malformed, undecoded }

-- A place in a stretch of bytes that never reads past its end. `fail` leaves the dissection; the
-- entry point below turns it into an expert note.
local Cursor = {}
Cursor.__index = Cursor

local function cursor(tvb, at, stop)
    return setmetatable({ tvb = tvb, at = at, stop = stop }, Cursor)
end

function Cursor:left()
    return self.stop - self.at
end

function Cursor:fail(text)
    error({ malformed = string.format("%s at byte %d", text, self.at) }, 0)
end

function Cursor:take(count, what)
    if self:left() < count then
        self:fail(string.format("%s needs %d bytes, %d are left", what, count, self:left()))
    end
    local range = self.tvb(self.at, count)
    self.at = self.at + count
    return range
end

-- Take `count` bytes and show them as `field`.
function Cursor:show(tree, field, count, what)
    local range = self:take(count, what)
    return range, tree:add(field, range)
end

local function dissect_match(c, tree)
    local start = c.at
    local item = tree:add(f.match, c.tvb(start, 0))
    local family = c:show(item, f.match_family, 1, "match family"):uint()
    local present = c:show(item, f.match_fields, 1, "match fields"):uint()
    if family ~= 0 and family ~= 4 and family ~= 6 then
        c:fail("match family is none of 0, 4 and 6")
    end
    if bit.band(present, 0x80) ~= 0 or (family == 0 and bit.band(present, 0x06) ~= 0) then
        c:fail("match has fields that cannot be")
    end
    if bit.band(present, 0x01) ~= 0 then
        c:show(item, f.match_protocol, 1, "IP protocol")
    end
    local len = family == 4 and 4 or 16
    local suffix = family == 4 and "_ip4" or "_ip6"
    for _, which in ipairs({ { "source", 0x02 }, { "destination", 0x04 } }) do
        if bit.band(present, which[2]) ~= 0 then
            local field = "match_" .. which[1] .. suffix
            c:show(item, f[field], len, which[1])
            c:show(item, f[field .. "_mask"], len, which[1] .. " mask")
        end
    end
    for _, word in ipairs({
        { "source_port", 0x08 }, { "destination_port", 0x10 },
        { "outer_vlan", 0x20 }, { "inner_vlan", 0x40 },
    }) do
        if bit.band(present, word[2]) ~= 0 then
            c:show(item, f[word[1]], 2, word[1])
            c:show(item, f[word[1] .. "_mask"], 2, word[1] .. " mask")
        end
    end
    item:set_len(c.at - start)
end

local function dissect_flow(c, tree)
    local start = c.at
    local item = tree:add(f.flow, c.tvb(start, 0))
    local shape = c:take(1, "flow")
    item:add(f.flow_family, shape)
    item:add(f.flow_vlans, shape)
    local family, vlans = bit.rshift(shape:uint(), 4), bit.band(shape:uint(), 0x0f)
    if (family ~= 2 and family ~= 4 and family ~= 6) or vlans > 2 then
        c:fail("flow has a family or a number of VLAN ids that cannot be")
    end
    c:show(item, f.flow_protocol, 1, "IP protocol")
    for _ = 1, vlans do
        c:show(item, f.flow_vlan, 2, "VLAN id")
    end
    if family == 2 then
        c:show(item, f.flow_ethertype, 2, "EtherType")
        c:show(item, f.low_mac, 6, "low address")
        c:show(item, f.high_mac, 6, "high address")
    else
        local suffix = family == 4 and "_ip4" or "_ip6"
        for _, which in ipairs({ "low", "high" }) do
            c:show(item, f[which .. suffix], family == 4 and 4 or 16, which .. " address")
            c:show(item, f[which .. "_port"], 2, which .. " port")
        end
    end
    item:set_len(c.at - start)
end

local function list_of(dissect)
    return function(c, tree)
        while c:left() > 0 do
            dissect(c, tree)
        end
    end
end

local function one(field, len)
    return function(c, tree)
        c:show(tree, field, len, "value")
    end
end

-- Text that fills the rest of its TLV; `add` refuses an empty range, and empty text is no news.
local function text(field)
    return function(c, tree)
        if c:left() > 0 then
            tree:add_packet_field(field, c:take(c:left(), "text"), ENC_UTF_8)
        end
    end
end

local VALUES = {
    [0x0001] = dissect_match,
    [0x0002] = dissect_match,
    [0x0003] = list_of(dissect_match),
    [0x0004] = one(f.priority, 2),
    [0x0005] = one(f.source, 4),
    [0x0006] = one(f.destination, 4),
    [0x0007] = function(c, tree)
        c:show(tree, f.peer_instance, 4, "peer instance")
        -- The length tells the family.
        if c:left() < 18 then
            c:show(tree, f.peer_ip4, 4, "peer address")
        else
            c:show(tree, f.peer_ip6, 16, "peer address")
        end
        c:show(tree, f.peer_port, 2, "peer port")
    end,
    [0x0008] = list_of(dissect_flow),
    [0x0009] = function(c, tree)
        local side = c:show(tree, f.side, 1, "side"):uint()
        if not SIDES[side] then
            c:fail("side is neither 1 nor 2")
        end
    end,
    [0x000a] = list_of(function(c, tree)
        local number = c:take(2, "counter"):uint()
        local field = f["count_" .. number] or f.count_unknown
        c:show(tree, field, 8, "count")
    end),
    [0x000b] = function(c, tree)
        c:show(tree, f.reason, 2, "reason")
        text(f.text)(c, tree)
    end,
    [0x000c] = one(f.deadline, 4),
    [0x000d] = one(f.settling, 4),
    [0x000e] = text(f.strategy),
    [0x000f] = one(f.epoch, 8),
    [0x0010] = function(c, tree)
        c:show(tree, f.list, 4, "list")
        c:show(tree, f.part, 2, "part")
        c:show(tree, f.parts, 2, "parts")
    end,
    [0x0011] = function(c, tree)
        c:show(tree, f.reply_command, 1, "answered command")
        c:show(tree, f.reply_sequence, 8, "answered sequence")
    end,
    [0x0012] = one(f.round, 4),
    [0x0013] = one(f.cpu, 2),
    [0x8014] = text(f.name),
    [0x8015] = text(f.step),
}

local function dissect_tlv(c, tree)
    local start = c.at
    local item = tree:add(f.tlv, c.tvb(start, 0))
    local kind = c:show(item, f.tlv_type, 2, "TLV type"):uint()
    local len = c:show(item, f.tlv_length, 2, "TLV length"):uint()
    item:set_text("TLV: " .. (KINDS[kind] or string.format("unknown %#06x", kind)))
    if c:left() < len then
        c:fail(string.format("TLV value needs %d bytes, %d are left", len, c:left()))
    end
    local value = cursor(c.tvb, c.at, c.at + len)
    c.at = c.at + len
    item:set_len(c.at - start)
    if VALUES[kind] then
        VALUES[kind](value, item)
        if value:left() > 0 then
            value:fail(string.format("TLV has %d bytes too many", value:left()))
        end
        return
    end
    if len > 0 then
        value:show(item, f.unknown, len, "value")
    end
    if bit.band(kind, 0x8000) == 0 then
        c:fail(string.format("mandatory TLV %#06x is unknown, its end", kind))
    end
    item:add_proto_expert_info(undecoded, "optional TLV, to be skipped")
end

local function dissect_flags(c, tree)
    local range, item = c:show(tree, f.flags, 2, "flags")
    for _, flag in ipairs({ "retry", "both_sides", "drain_unproven", "unfenced", "state_lost",
        "turned" }) do
        item:add(f[flag], range)
    end
    if bit.band(range:uint(), bit.bnot(KNOWN_FLAGS)) ~= 0 then
        item:add_proto_expert_info(malformed, "unknown flags")
    end
end

local function dissect(tvb, pinfo, tree)
    local c = cursor(tvb, 0, tvb:len())
    local version = c:show(tree, f.version, 1, "version"):uint()
    if version ~= 1 then
        tree:add_proto_expert_info(undecoded, "version " .. version .. ", this is for 1")
        return
    end
    local command, command_item = c:show(tree, f.command, 1, "command")
    local name = COMMANDS[command:uint()]
    pinfo.cols.info = name or string.format("unknown command %#04x", command:uint())
    if not name then
        command_item:add_proto_expert_info(malformed, "unknown command")
    end
    dissect_flags(c, tree)
    c:show(tree, f.key_id, 2, "key id")
    local tlv_len = c:show(tree, f.tlv_len, 2, "TLV length"):uint()
    c:show(tree, f.handover, 8, "handover")
    local to = c:show(tree, f.to, 4, "addressee"):uint()
    local from = c:show(tree, f.from, 4, "sender"):uint()
    c:show(tree, f.boot, 8, "boot id")
    local sequence = c:show(tree, f.sequence, 8, "sequence"):uint64()
    pinfo.cols.info:append(string.format(" %d > %d seq %s", from, to, tostring(sequence)))

    if c:left() < tlv_len + TAG_LEN then
        c:fail(string.format("TLVs and tag need %d bytes, %d are left",
            tlv_len + TAG_LEN, c:left()))
    end
    -- The tag first: it is in place whatever the TLVs hold.
    local after = cursor(tvb, HEADER_LEN + tlv_len, tvb:len())
    after:show(tree, f.tag, TAG_LEN, "tag")
    if after:left() > 0 then
        after:show(tree, f.padding, after:left(), "padding")
    end
    local tlvs = cursor(tvb, HEADER_LEN, HEADER_LEN + tlv_len)
    while tlvs:left() > 0 do
        if tlvs:left() < TLV_HEADER_LEN then
            tlvs:fail(string.format("TLV needs %d bytes, %d are left",
                TLV_HEADER_LEN, tlvs:left()))
        end
        dissect_tlv(tlvs, tree)
    end
end

function proto.dissector(tvb, pinfo, root)
    pinfo.cols.protocol = "Flowferry"
    local tree = root:add(proto, tvb())
    local done, failure = pcall(dissect, tvb, pinfo, tree)
    if done then
        return
    end
    if type(failure) ~= "table" or not failure.malformed then
        error(failure, 0)
    end
    tree:add_proto_expert_info(malformed, failure.malformed)
    pinfo.cols.info:append(" [malformed]")
end

DissectorTable.get("ethertype"):add(0x821c, proto)
