<?php
function burn_hot($n)
{
	$s = 0;
	for ($i = 0; $i < $n; $i++)
		$s += $i * $i % 7;
	return $s;
}
function burn_middle($n) { return burn_hot($n) + 1; }
function burn_main()
{
	$end = microtime(true) + 8;
	while (microtime(true) < $end)
		burn_middle(20000);
}
burn_main();
