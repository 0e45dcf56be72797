-- What pktgen does for uvs-perf: one rate after the other, a line of JSON each, and an end whatever happens. Parameters come by
-- the environment. pktgen's prompt waits for ever after a mistake, so every error ends in quit.
local env = function(name, otherwise) return os.getenv(name) or otherwise end
local SEND, RECEIVE = "0", env("RECEIVE", "0")
local S, R = tonumber(SEND), tonumber(RECEIVE)
local VIP, DPORT, DMAC = env("VIP"), tonumber(env("DPORT")), env("DMAC")
local PROTO, FLOWS, SIZE = env("PROTO"), tonumber(env("FLOWS")), tonumber(env("SIZE"))
local SECONDS, SAMPLES = tonumber(env("SECONDS")), env("SAMPLES", "")
local out = assert(io.open(env("OUT"), "w"))

local function line(format, ...)
  out:write(string.format(format, ...), "\n")
  out:flush()
end

local function span(set, first, min, max, inc)
  set(SEND, "start", first) set(SEND, "min", min) set(SEND, "max", max) set(SEND, "inc", inc)
end

local function flows_by_range()
  local range = pktgen.range
  range.ip_proto(SEND, PROTO)
  span(range.dst_mac, DMAC, DMAC, DMAC, "00:00:00:00:00:00")
  span(range.dst_ip, VIP, VIP, VIP, "0.0.0.0")
  span(range.src_ip, "198.19.0.1", "198.19.0.1", "198.19.0.1", "0.0.0.0")
  span(range.src_port, 1024, 1024, 1024 + FLOWS - 1, 1)
  span(range.dst_port, DPORT, DPORT, DPORT, 0)
  span(range.pkt_size, SIZE, SIZE, SIZE, 0)
  pktgen.set_range(SEND, "on")
end

local function at(rate)
  pktgen.set(SEND, "rate", rate)                      -- a string keeps fractions
  pktgen.clear("all")
  if SAMPLES ~= "" then
    pktgen.latsampler_params(RECEIVE, "simple", 1000 * SECONDS, 1000, SAMPLES .. "." .. rate)
    pktgen.latsampler(RECEIVE, "on")
  end
  pktgen.start(SEND)
  pktgen.delay(2200)                                  -- the first whole tick of the statistics
  local tx, rx = 0, 0
  for _ = 1, SECONDS do
    pktgen.delay(1000)
    tx = tx + pktgen.portStats(SEND, "rate")[S].pkts_tx
    rx = rx + pktgen.portStats(RECEIVE, "rate")[R].pkts_rx
  end
  if SAMPLES ~= "" then pktgen.latsampler(RECEIVE, "off") end
  pktgen.stop(SEND)
  pktgen.delay(2200)                                  -- drain, and one more tick
  local sent, received = pktgen.portStats(SEND, "port")[S], pktgen.portStats(RECEIVE, "port")[R]
  local probes = pktgen.pktStats(RECEIVE)[R].latency
  line('{"rate":%s,"seconds":%d,"tx_pps":%d,"rx_pps":%d,"tx":%d,"rx":%d,"imissed":%d,"nombuf":%d,"oerrors":%d,'
    .. '"probes":%d,"probes_skipped":%d}', rate, SECONDS, tx // SECONDS, rx // SECONDS, sent.opackets,
    received.ipackets, received.imissed, received.rx_nombuf, sent.oerrors, probes.num_pkts, probes.num_skipped)
end

local function run()
  pktgen.screen("off")
  pktgen.stop("all")
  pktgen.set(SEND, "count", 0) pktgen.set(SEND, "burst", 32)
  pktgen.set(SEND, "size", SIZE)                      -- pacing reads this one, frames the range's
  pktgen.set_mac(SEND, "dst", DMAC)                   -- latency probes have the fields of single packets
  pktgen.set_ipaddr(SEND, "dst", VIP) pktgen.set_ipaddr(SEND, "src", "198.19.0.1/16")
  if env("PCAP", "") ~= "" then pktgen.pcap(SEND, "on") else flows_by_range() end
  if SAMPLES ~= "" then
    for _, port in ipairs({SEND, RECEIVE}) do
      pktgen.latency(port, "rate", 1000) pktgen.latency(port, "on")
    end
  end
  for rate in env("RATES"):gmatch("%S+") do at(rate) end
end

local fine, mistake = xpcall(run, debug.traceback)
if fine then line('{"done":true}') else line('{"error":"%s"}', (tostring(mistake):gsub('[%c"\\]', " "))) end
out:close()
pktgen.stop("all")
pktgen.delay(500)
pktgen.quit()
