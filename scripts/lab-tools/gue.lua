-- Generic UDP Encapsulation (draft-ietf-intarea-gue), version 0 without private data, as far as its payload is reached.
local gue = Proto("gue", "Generic UDP Encapsulation")
function gue.dissector(buffer, pinfo, tree)
    if buffer:len() < 4 then return 0 end
    local length = 4 + 4 * buffer(0, 1):bitfield(3, 5)
    local ip = DissectorTable.get("ip.proto"):get_dissector(buffer(1, 1):uint())
    tree:add(gue, buffer(0, length))
    if ip then ip:call(buffer(length):tvb(), pinfo, tree) end
end
DissectorTable.get("udp.port"):add(5555, gue)
