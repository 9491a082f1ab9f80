def burn_hot(n)
  s = 0
  i = 0
  while i < n
    s += i * i % 7
    i += 1
  end
  s
end

def burn_middle(n) = burn_hot(n) + 1

def burn_main
  stop = Time.now + 8
  burn_middle(20_000) while Time.now < stop
end

burn_main
