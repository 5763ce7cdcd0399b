-- wrk posts the file `body` of the folder LOAD_FOLDER. The mark in it becomes a number, or a line of the file `values`.
local folder = os.getenv('LOAD_FOLDER')
local mark = '0000000000'

local function read(name)
  local file = assert(io.open(folder .. '/' .. name, 'rb'))
  local text = file:read('*a')
  file:close()
  return text
end

wrk.method = 'POST'
wrk.path = os.getenv('LOAD_PATH')
wrk.body = read('body')
for name, value in read('headers'):gmatch('([^:\n]+): ([^\n]+)\n') do wrk.headers[name] = value end

if read('values') ~= '' then
  local requests, n = {}, 0
  init = function()
    for value in read('values'):gmatch('[^\n]+') do
      requests[#requests + 1] = wrk.format(nil, nil, nil, (wrk.body:gsub(mark, value)))
    end
  end
  request = function()
    n = n % #requests + 1
    return requests[n]
  end
elseif wrk.body:find(mark, 1, true) then
  local parts, number = {}, tonumber(os.getenv('LOAD_FIRST'))
  init = function()
    for part in (wrk.format() .. mark):gmatch('(.-)' .. mark) do parts[#parts + 1] = part end
  end
  request = function()
    number = number + 1
    return table.concat(parts, string.format('%010d', number))
  end
end

done = function(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print(string.format('\n{"requests": %d, "bytes": %d, "us": %d, "p50": %d, "p99": %d, "errors": %d}', summary.requests,
    summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99), failed))
end
