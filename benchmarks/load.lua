-- wrk script: loads the service, and prints the result on stderr as JSON.
--
-- Arguments "get FILE": sends the requests of the file in turns. Each line is a path and headers as
-- "Name: value", separated by tabs.
--
-- Arguments "post FILE SIZE RUN": posts batches of SIZE new events; RUN is a number that no other
-- run has. The file's first line is the value of the Authorization header. Each other line is the
-- JSON of an event after its id: ',"organizationId":"…","agentId":"…","issuedAt":"…"}'.

local make

local function getting(file)
  local requests, current = {}, 0
  for line in io.lines(file) do
    local path, headers = nil, {}
    for field in line:gmatch("[^\t]+") do
      local name, value = field:match("^([%w-]+): (.*)$")
      if name then headers[name] = value else path = field end
    end
    requests[#requests + 1] = wrk.format("GET", path, headers)
  end
  return function()
    current = current % #requests + 1
    return requests[current]
  end
end

local function posting(file, size, run)
  local rests, hex, batch = {}, {}, 0
  local lines = io.lines(file)
  local headers = {["Authorization"] = lines(), ["Content-Type"] = "application/x-ndjson"}
  for line in lines do rests[#rests + 1] = line .. "\n" end
  for number = 0, 65535 do hex[number] = string.format("%04x", number) end
  local function eight()  -- random as in a UUID, so that the index is as slow as with UUIDs
    return hex[math.random(0, 65535)] .. hex[math.random(0, 65535)]
  end
  return function()
    batch = batch + 1
    local parts, same = {}, string.format("-0000-4000-8%03x-%05x", run, batch)
    for event = 1, size do
      parts[event] = '{"id":"' .. eight() .. same .. hex[event] .. '000"' .. rests[math.random(#rests)]
    end
    return wrk.format("POST", "/api/v1/events", headers, table.concat(parts))
  end
end

function init(args)
  local kinds = {get = getting, post = posting}
  make = kinds[args[1]](args[2], tonumber(args[3]), tonumber(args[4]))
end

function request()
  return make()
end

function done(summary, latency)
  local failed = summary.errors
  io.stderr:write(string.format(
    '{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "failures": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    failed.connect + failed.read + failed.write + failed.status + failed.timeout))
end
