-- wrk: creates ConfigMaps of about 1 KB, each with a name of its own. See docs/performance.md.
local run, n = "", 0

function init(args)
  -- The address of a new table differs from thread to thread.
  run = tostring({}):sub(-8) .. "-" .. os.time()
end

function request()
  n = n + 1
  local body = string.format(
    '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c-%s-%d"},"data":{"x":"%s"}}',
    run, n, string.rep("x", 850))
  local headers = { ["Content-Type"] = "application/json", ["Authorization"] = wrk.headers["Authorization"] }
  return wrk.format("POST", "/api/v1/namespaces/default/configmaps", headers, body)
end
